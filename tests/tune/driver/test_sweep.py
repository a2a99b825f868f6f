"""What is refused before Ray is started, and before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from magtkd.data import read_corpus
from magtkd.errors import SweepError, TrackingError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord, source_of
from tune.config import SweepConfig, SweepOptions, with_changes
from tune.driver import is_to_resume, preview_sweep, resume_sweep, run_sweep
from tune.ledger import (
    Event,
    StagesRecorded,
    SweepChanged,
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


def write_ended(storage: Path, why: str, *events: Event) -> SweepLayout:
    layout = SweepLayout(storage, "mosi")
    with open_ledger(layout) as ledger:
        fingerprint = source_of(read_corpus(SWEEP.data)).fingerprint
        config = SWEEP.model_dump(mode="json")
        ledger.append(SweepOpened(name="mosi", config=config, fingerprint=fingerprint))
        for event in events:
            ledger.append(event)
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED, why=why))
    return layout


def test_a_finished_sweep_is_given_more_or_stays_as_it_is(tmp_path: Path) -> None:
    why = "search.budget.trials: 5 trials have ended"
    layout = write_ended(tmp_path, why, SweepChanged(changes={"search.budget.trials": 5}))
    options, before = SweepOptions(storage=str(tmp_path)), layout.ledger.read_bytes()
    for overrides in ((), ("search.budget.trials=5", "search.num_trials=20")):
        state = resume_sweep("mosi", options, overrides=overrides)
        assert (state.why_closed, state.sweep.search.most_trials) == (why, 5)
    with pytest.raises(SweepError, match=r"^seed: 3: sweep 'mosi' was begun with 0, on which"):
        resume_sweep("mosi", options, overrides=["seed=3"])
    with pytest.raises(SweepError, match="Ray was started"):
        resume_sweep("mosi", options, overrides=["search.budget.trials=6"])
    assert layout.ledger.read_bytes() == before


def test_more_of_one_limit_is_not_enough_where_another_is_reached(tmp_path: Path) -> None:
    stages = {"teacher": StageRecord("0" * 32, "trained", 3600.0)}
    layout = write_ended(
        tmp_path,
        "search.budget.stage_hours: 0.5 h of training are over",
        SweepChanged(changes={"search.budget.stage_hours": 0.5}),
        TrialSuggested(trial=0, values={"fusion.dropout": 0.2}),
        StagesRecorded(trial=0, stages=stages),
    )
    options, before = SweepOptions(storage=str(tmp_path)), layout.ledger.read_bytes()
    message = r"^search\.budget\.stage_hours: 0\.5 h .* would end at once; give it more, or search"
    with pytest.raises(SweepError, match=message):
        resume_sweep("mosi", options, overrides=["search.num_trials=100"])
    with pytest.raises(SweepError, match="Ray was started"):
        resume_sweep("mosi", options, overrides=["search.budget.stage_hours=2"])
    assert layout.ledger.read_bytes() == before


def test_a_file_is_that_of_the_sweep_as_it_was_begun_or_as_it_is(tmp_path: Path) -> None:
    write_ended(tmp_path, "x: y", SweepChanged(changes={"search.num_trials": 100}))
    options = SweepOptions(storage=str(tmp_path))
    assert is_to_resume(SWEEP, options)
    tree = SWEEP.model_dump(mode="json")
    changed = SweepConfig.model_validate(with_changes(tree, {"search.num_trials": 100}))
    assert is_to_resume(changed, options)
    other = SweepConfig.model_validate(with_changes(tree, {"search.num_trials": 50}))
    message = r"search\.num_trials: 50, but .* with --resume mosi search\.num_trials=50, or give"
    with pytest.raises(SweepError, match=message):
        is_to_resume(other, options)
