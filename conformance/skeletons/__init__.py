"""The files that `roomwire-check init` writes. The programs among them import nothing of the suite."""
