"""What breaks, and what is promised all the same: `python -m benchmarks.faults --help`."""
