"""The server without I/O: the tick, peers, rooms, limits. Time is an argument."""
