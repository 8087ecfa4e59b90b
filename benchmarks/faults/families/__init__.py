"""Families of faults: one module for each thing that can fail."""
