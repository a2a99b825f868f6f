"""MLflow as a projection of the ledger. MLflow itself is imported where a store is opened."""

from tune.tracking.tracker import Tracker, num_behind, sync

__all__ = ["Tracker", "num_behind", "sync"]
