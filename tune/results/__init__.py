"""What came out of a sweep: rows, costs, the best trials, its status."""
