"""The fuzzer of servers: scripts of raw clients against a model of the promise."""
