"""The fuzzer of clients: a model server that is right, or wrong in one named way.

Importing the package registers the steps and handshakes.
"""

from conformance.fuzz.client import command_steps, connection_steps, handshakes, room_steps

__all__ = ["command_steps", "connection_steps", "handshakes", "room_steps"]
