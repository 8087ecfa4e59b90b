"""The server role: a client made of octets, and what a server under test must do."""
