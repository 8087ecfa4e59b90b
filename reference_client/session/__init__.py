"""A client session without I/O: it reconnects, resumes, and repeats what was not acknowledged."""
