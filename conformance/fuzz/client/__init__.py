"""The fuzzer of clients: a model server that is right, or wrong in one named way."""
