"""Shared by the families: a server process, members that keep records, the audit, and tools that cause faults."""
