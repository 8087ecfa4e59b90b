"""Sockets and TLS on asyncio: listening, accepting, reading and writing."""
