"""Which values come next, and which trials stop early."""
