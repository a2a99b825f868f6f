"""A file as an artifact of a sweep's run: one that is made on request, and is in no ledger."""

from __future__ import annotations

import tempfile
from pathlib import Path

from magtkd.errors import TrackingError
from tune.ledger import SweepLayout, first_event
from tune.redact import redact
from tune.tracking.refusals import in_our_words
from tune.tracking.runs import CURSOR_TAG
from tune.tracking.store import SWEEP_TAG, find_experiment, import_mlflow, open_client, read_tag

__all__ = ["attach"]


def attach(layout: SweepLayout, tracking_uri: str, name: str, content: str) -> None:
    """Log a file with the run of a sweep; one of the same name is replaced.

    Args:
        layout: where the sweep is.
        tracking_uri: the store's address.
        name: the artifact's.
        content: what is in it.

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
            _log(tracking_uri, opened.sweep_id, name, content)
            return
    except Exception as error:
        raise in_our_words(tracking_uri, error) from None
    raise TrackingError(
        f"tracking at {redact(tracking_uri)}: has no run of sweep {layout.name!r}",
        f"send it first: magtkd sync {layout.name}",
    )


def _log(uri: str, sweep_id: str, name: str, content: str) -> None:
    client, every = open_client(uri), import_mlflow().entities.ViewType.ALL
    experiment = find_experiment(client, sweep_id)
    query = f"tags.`{SWEEP_TAG}` = '{sweep_id}' AND tags.`{CURSOR_TAG}` != ''"
    ids = [experiment.experiment_id]
    (run,) = client.search_runs(ids, query, run_view_type=every, max_results=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(content, encoding="utf-8")
        client.log_artifact(run.info.run_id, str(path))
