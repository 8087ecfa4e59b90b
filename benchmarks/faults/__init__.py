"""Faults, and the promises that must hold in spite of them: `python -m benchmarks.faults --help`."""
