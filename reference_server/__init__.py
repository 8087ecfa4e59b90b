"""The reference server: asyncio around `protocol.connection.ServerConnection`, with rooms, stores and limits.

It uses the package `protocol` alone; nothing here is imported by the client or by the conformance suite.
"""

VERSION = "0.1.0"
