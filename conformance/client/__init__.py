"""The client role: a server made of octets, and what a client under test must do."""
