"""The load generator: a C program, and the Python that compiles and runs it."""
