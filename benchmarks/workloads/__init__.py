"""Workloads: each module has the shapes of one kind of workload, and one pass of them."""
