"""SPEC.md as data: its requirements, tables and examples."""
