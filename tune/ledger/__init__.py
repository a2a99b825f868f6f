"""The ledger of a sweep: its events, its file, and the state that follows from them."""
