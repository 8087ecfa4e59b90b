"""The servers that are measured: Roomwire, and the peers beside it."""
