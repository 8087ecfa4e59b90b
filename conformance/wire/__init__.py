"""Octets for the suite: encoding, logs and explanations of frames, and SCRAM of its own."""
