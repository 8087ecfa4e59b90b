"""Octets of the suite: frames to and from octets, logs and explanations of them, and a SCRAM of its own."""
