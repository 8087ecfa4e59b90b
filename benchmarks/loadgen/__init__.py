"""The load generator: C programs' sources, and the Python that compiles and runs it."""
