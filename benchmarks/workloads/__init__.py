"""What is measured: one module for each kind of workload, each with its shapes and one pass of them."""
