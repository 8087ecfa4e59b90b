"""What all roles share: cases and their selection, options, processes, connections, and verdicts."""
