"""A file as an artifact of a sweep's run: one that is made on request, and is in no ledger."""

from __future__ import annotations

from collections.abc import Callable

from magtkd.errors import TrackingError
from tune.ledger import SweepLayout, first_event
from tune.redact import redact
from tune.tracking.refusals import in_our_words
from tune.tracking.runs import CURSOR_TAG, SweepRuns
from tune.tracking.store import read_tag

__all__ = ["attach"]


def attach(
    layout: SweepLayout, tracking_uri: str, name: str, content: str, note: Callable[[str], None]
) -> None:
    """Log a file with the run of a sweep; one of the same name is replaced.

    Args:
        layout: where the sweep is.
        tracking_uri: the store's address.
        name: the artifact's.
        content: what is in it.
        note: called with one line on what a person should know.

    Raises:
        SweepError: the ledger is missing or damaged.
        TrackingError: the store refuses, or does not have the sweep.
        StorageLostError: the store cannot be reached.
    """
    opened = first_event(layout.ledger)
    try:
        # Nothing is made in a store that does not have the sweep.
        is_there = opened is not None and read_tag(tracking_uri, opened.sweep_id, CURSOR_TAG)
        if opened is not None and is_there:
            # Which also makes the places of artifacts right, where the storage was moved.
            runs = SweepRuns(tracking_uri, opened, layout.mlflow_artifacts, note)
            runs.client.log_text(runs.id_of(None), content, name)
            return
    except Exception as error:
        raise in_our_words(tracking_uri, error) from None
    raise TrackingError(
        f"tracking at {redact(tracking_uri)}: has no run of sweep {layout.name!r}",
        f"send it first: magtkd sync {layout.name}",
    )
