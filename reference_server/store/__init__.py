"""Where rooms are kept: the contract, in memory, in SQLite, and tools for stores."""
