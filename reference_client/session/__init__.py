"""A client session without I/O: reconnects, resumes, and keeps what is not acknowledged."""
