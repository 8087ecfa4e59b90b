"""What a run leaves behind: terminal output, results.json, JUnit, HTML, comparison, coverage."""
