"""Reports of the figures: bars, tables, comparison with an older run, and a page with plots."""
