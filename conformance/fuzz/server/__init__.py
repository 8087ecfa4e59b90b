"""The fuzzer of servers: scripts of several connections against a model, and mutated octets.

Importing the package registers the steps.
"""

from conformance.fuzz.server import broken_steps, lifecycle_steps, login_steps, requests

__all__ = ["broken_steps", "lifecycle_steps", "login_steps", "requests"]
