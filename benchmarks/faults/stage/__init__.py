"""What the families share: a server process, members that keep records, the audit, and tools that break things."""
