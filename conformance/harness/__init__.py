"""What all roles share: cases, selection, options, processes, connections, verdicts."""
