"""What a run leaves behind: the terminal, results.json, JUnit, HTML, comparison, coverage."""
