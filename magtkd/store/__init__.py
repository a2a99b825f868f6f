"""The store: artifacts, checkpoints of sessions, locks."""
