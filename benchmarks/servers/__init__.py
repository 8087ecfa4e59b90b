"""The servers that the benchmarks measure: Roomwire and its peers."""
