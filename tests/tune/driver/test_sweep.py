"""What is refused before Ray is started, and before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from magtkd.data import read_corpus
from magtkd.errors import SweepError, TrackingError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord, source_of
from tune.config import SweepConfig, SweepOptions
from tune.driver import preview_sweep, resume_sweep, run_sweep
from tune.ledger import (
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)

SWEEP = SweepConfig.model_validate(
    {
        "name": "mosi",
        "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
        "space": {"fusion.dropout": {"float": [0.1, 0.5]}},
    }
)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", init)


def test_a_tracking_store_that_could_not_work(tmp_path: Path) -> None:
    options = SweepOptions(storage=str(tmp_path / "storage"), tracking_uri="sqlite://")
    for call in (run_sweep, preview_sweep):
        with pytest.raises(TrackingError, match="in memory"):
            call(SWEEP, options)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_s_folder_without_its_storage(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    with open_ledger(layout) as ledger:
        fingerprint = source_of(read_corpus(SWEEP.data)).fingerprint
        config = SWEEP.model_dump(mode="json")
        ledger.append(SweepOpened(name="mosi", config=config, fingerprint=fingerprint))
        ledger.append(TrialSuggested(trial=0, values={"fusion.dropout": 0.2}))
        stages = {"teacher": StageRecord("0" * 32, "reused", 0.0)}
        ledger.append(StagesRecorded(trial=0, stages=stages))
        dev = Scores(0.7, 0.6)
        ended = TrialEnded(trial=0, state=TrialStatus.COMPLETED, dev=dev, objectives=[0.6])
        ledger.append(ended)
        ledger.append(SweepClosed(reason=SweepEnd.INTERRUPTED))
    before = layout.ledger.read_bytes()
    message = f"storage {tmp_path} has no artifact of its completed trials; move or copy a storage"
    with pytest.raises(SweepError, match=message):
        resume_sweep("mosi", SweepOptions(storage=str(tmp_path)))
    assert layout.ledger.read_bytes() == before
