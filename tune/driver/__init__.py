"""The driver of a sweep: Ray Tune's loop between the ledger, the search and the engine."""
