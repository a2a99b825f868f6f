from dataclasses import replace
from types import SimpleNamespace

import pytest

from magtkd.errors import StorageLostError
from magtkd.metrics import Report
from magtkd.pipeline import StageRecord
from tune.config import SweepConfig
from tune.driver.recorder import Recorder, chosen_report
from tune.engine import Failure, FailureKind
from tune.ledger import (
    EpochReported,
    StagesRecorded,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepState,
    TrialChanged,
    TrialEnded,
    TrialSuggested,
    open_ledger,
    read_sweep,
)
from tune.results import sweep_cost
from tune.space import Candidate
from tune.trial import TrialResult

SWEEP = SweepConfig.model_validate(
    {
        "name": "toy",
        "objective": {"metric": "dev/accuracy", "mode": "max"},
        "space": {
            "fusion.dropout": {"float": [0.0, 0.9]},
            "fusion.detach_anchor": {"choice": [0, 1]},
        },
    }
)
VALUES = {"fusion.dropout": 0.5, "fusion.detach_anchor": False}
STAGES = {"teacher": StageRecord("aa", "trained", 3.0)}
RECOVERED = {"teacher": StageRecord("aa", "recovered", 3.0)}
FUSION = StageRecord("ff", "trained", 1.5)


def metrics_of(accuracy):
    return {
        "train/loss": 1.0,
        "dev/loss": 2.0,
        "dev/accuracy": accuracy,
        "dev/weighted_f1": accuracy / 2,
        "dev/f1/joy": 0.25,
    }


@pytest.fixture
def driven(tmp_path):
    """A recorder whose ledger has two trials; what its listener gets, and which trials end."""
    layout = SweepLayout(tmp_path, "toy")
    with open_ledger(layout) as ledger:
        state, events, closed = SweepState(), [], []
        config = SWEEP.model_dump(mode="json")
        state.apply(ledger.append(SweepOpened(name="toy", config=config)))
        recorder = Recorder(
            sweep=SWEEP,
            ledger=ledger,
            state=state,
            listeners=[events.append],
            on_end=closed.append,
        )
        for number in range(2):
            recorder.record(TrialSuggested(trial=number, values=VALUES))
        events.clear()
        yield SimpleNamespace(
            recorder=recorder, events=events, closed=closed, state=state, layout=layout
        )


def result_of(epoch, accuracy, trial=0, candidate=VALUES, **fields):
    if not isinstance(candidate, Candidate):
        candidate = Candidate(values=candidate)
    metrics = metrics_of(accuracy) if epoch else {}
    return TrialResult(number=trial, epoch=epoch, metrics=metrics, candidate=candidate, **fields)


def report(driven, epoch, accuracy, trial=0, **fields):
    result = result_of(epoch, accuracy, trial, **fields).to_ray("dev/accuracy") | {
        "time_total_s": 9.0
    }
    driven.recorder.on_trial_result(0, [], None, result)
    return result


def end(driven, last_result, trial=0):
    ray_trial = SimpleNamespace(
        config={"trial": trial}, trial_id=f"ray-{trial}", last_result=last_result
    )
    driven.recorder.on_trial_complete(0, [], ray_trial)


def kinds(driven):
    return [type(event) for event in driven.events]


def test_the_chosen_report_is_the_first_best():
    reports = [
        EpochReported(trial=0, epoch=epoch, metrics={"dev/loss": loss, "dev/accuracy": accuracy})
        for epoch, loss, accuracy in [(1, 0.5, 0.1), (2, None, None), (3, 0.3, 0.7), (4, 0.3, 0.7)]
    ]
    assert chosen_report(reports, "accuracy").epoch == 3
    assert chosen_report(reports, "loss").epoch == 3
    assert chosen_report(reports[1:2], "loss") is None


def test_a_result_becomes_events_in_order(driven):
    report(driven, 1, 0.5, stages=STAGES)
    assert kinds(driven) == [StagesRecorded, EpochReported]
    assert driven.events[1].metrics == metrics_of(0.5)
    assert driven.events[1].epoch == 1


def test_a_stage_is_recorded_once(driven):
    report(driven, 1, 0.5, stages=STAGES)
    report(driven, 2, 0.5, stages={"teacher": StageRecord("aa", "reused", 0.0)})
    assert kinds(driven) == [StagesRecorded, EpochReported, EpochReported]
    assert driven.state.trials[0].stages["teacher"].outcome == "trained"


def test_what_an_interrupted_session_cost_is_counted_once(driven):
    report(driven, 1, 0.5, fusion=FUSION)
    driven.recorder.close(SweepEnd.INTERRUPTED)
    cost = sweep_cost(read_sweep(driven.layout))["fusion"]
    assert (cost.num_stopped, cost.num_trained, cost.seconds_trained) == (1, 0, 1.5)
    # Continued from its export, which knows what it had taken.
    last = report(driven, 2, 0.5, fusion=replace(FUSION, seconds=2.5), chosen=Report(2, {}))
    end(driven, last)
    cost = sweep_cost(read_sweep(driven.layout))["fusion"]
    assert (cost.num_stopped, cost.num_trained, cost.seconds_trained) == (0, 1, 2.5)


def test_an_interrupted_session_whose_artifact_is_found_was_trained(driven):
    report(driven, 1, 0.5, fusion=FUSION)
    driven.recorder.close(SweepEnd.INTERRUPTED)
    report(driven, 2, 0.5, stages={"fusion": StageRecord("ff", "recovered", 2.5)})
    cost = sweep_cost(read_sweep(driven.layout))["fusion"]
    assert (cost.num_stopped, cost.num_trained, cost.seconds_trained) == (0, 1, 2.5)


def test_a_completed_trial_has_the_artifact_s_epoch(driven):
    report(driven, 1, 0.5, fusion=FUSION)
    last = report(driven, 2, 0.25, fusion=FUSION, chosen=Report(1, metrics_of(0.5)))
    assert last["done"]
    end(driven, last)
    assert kinds(driven) == [EpochReported, EpochReported, StagesRecorded, TrialEnded]
    trial = driven.state.trials[0]
    assert (trial.state, trial.epoch, trial.objectives) == ("completed", 1, [0.5])
    assert trial.dev.accuracy == 0.5
    assert trial.dev.per_class["joy"] == 0.25
    assert trial.stages["fusion"].outcome == "trained"
    assert driven.closed == [0]


def test_a_stopped_trial_has_its_best_epoch_so_far(driven):
    report(driven, 1, 0.5)
    last = report(driven, 2, 0.25, fusion=FUSION)
    end(driven, last)
    trial = driven.state.trials[0]
    assert (trial.state, trial.epoch, trial.objectives) == ("stopped", 1, [0.5])
    assert trial.stages["fusion"].outcome == "stopped"


def test_a_diverged_trial_has_a_message_and_no_score(driven):
    report(driven, 1, 0.5)
    last = report(driven, 0, 0.5, failure=Failure(FailureKind.DIVERGED, "fusion: diverged"))
    assert last["done"]
    end(driven, last)
    trial = driven.state.trials[0]
    assert (trial.state, trial.message) == ("diverged", "fusion: diverged")
    assert trial.dev is trial.objectives is trial.epoch is None
    assert len(trial.reports) == 1


def test_a_metric_that_is_not_finite_is_recorded_as_null(driven):
    report(driven, 1, float("nan"))
    assert driven.events[0].metrics["dev/accuracy"] is None


def test_a_trial_ends_once(driven):
    last = report(driven, 1, 0.5)
    end(driven, last)
    end(driven, last)
    assert kinds(driven).count(TrialEnded) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("first\nthe cause"), "the cause"),
        (RuntimeError(""), "the trial's process died"),
        (None, "the trial's process died"),
    ],
)
def test_an_error_fails_the_trial_in_one_line(driven, error, message):
    ray_trial = SimpleNamespace(
        config={"trial": 1}, trial_id="ray-1", last_result=None, get_error=lambda: error
    )
    driven.recorder.on_trial_error(0, [], ray_trial)
    trial = driven.state.trials[1]
    assert (trial.state, trial.message) == ("failed", message)


# --- population based training ----------------------------------------------------------------


def descend(driven, epoch, changes, base=VALUES):
    candidate = Candidate(values=base, changes=changes)
    return report(driven, epoch, 0.5, candidate=candidate)


def changed(driven):
    return [event for event in driven.events if isinstance(event, TrialChanged)]


def test_changed_values_are_recorded_once_and_whole(driven):
    report(driven, 1, 0.5)
    base = VALUES | {"fusion.detach_anchor": True}
    for epoch in (2, 3):
        descend(driven, epoch, {2: {"dropout": 0.25}}, base)
    [event] = changed(driven)
    assert event.epoch == 2
    assert event.values == {"fusion.dropout": 0.25, "fusion.detach_anchor": True}
    trial = driven.state.trials[0]
    assert trial.candidate == Candidate(values=base, changes={2: {"dropout": 0.25}})
    assert trial.suggested == Candidate(values=VALUES)


def test_a_trial_that_took_over_another_s_values_unchanged_has_them(driven):
    base = VALUES | {"fusion.dropout": 0.125}
    report(driven, 1, 0.5)
    descend(driven, 4, {}, base)
    [event] = changed(driven)
    assert (event.epoch, event.values) == (4, base)
    assert driven.state.trials[0].candidate == Candidate(values=base)


def test_a_trial_that_continued_its_own_session_did_not_change(driven):
    report(driven, 1, 0.5)
    descend(driven, 2, {})
    assert changed(driven) == []


def test_a_trial_that_starts_anew_has_its_own_values_again(driven):
    descend(driven, 2, {2: {"dropout": 0.25}}, VALUES | {"fusion.dropout": 0.75})
    report(driven, 1, 0.5)
    assert changed(driven)[-1].values == VALUES
    assert driven.state.trials[0].candidate == Candidate(values=VALUES)


def test_a_reader_of_the_ledger_learns_the_same(driven):
    report(driven, 1, 0.5, stages=STAGES)
    descend(driven, 2, {2: {"dropout": 0.25}})
    end(driven, descend(driven, 3, {2: {"dropout": 0.25}}))
    assert read_sweep(driven.layout).trials == driven.state.trials


# --- what was trained before something died ---------------------------------------------------


def test_a_stage_that_was_trained_but_not_recorded_counts_as_trained_once(driven):
    for trial in (0, 1):
        report(driven, 1, 0.5, trial=trial, stages=RECOVERED)
    first, second = (driven.state.trials[number].stages["teacher"] for number in (0, 1))
    assert (first.outcome, first.seconds) == ("trained", 3.0)
    assert (second.outcome, second.seconds, second.saved) == ("reused", 0.0, 3.0)


def test_a_fusion_whose_worker_died_after_its_last_epoch_is_recorded_once(driven):
    report(driven, 1, 0.5, fusion=FUSION)
    found = {"fusion": replace(FUSION, outcome="recovered", seconds=2.0)}
    last = report(driven, 2, 0.5, stages=found, chosen=Report(2, metrics_of(0.5)))
    end(driven, last)
    assert kinds(driven) == [EpochReported, StagesRecorded, EpochReported, TrialEnded]
    assert driven.state.trials[0].stages["fusion"].seconds == 2.0


def test_a_stage_that_the_ledger_knows_as_trained_is_reused_after_a_resume(driven):
    report(driven, 1, 0.5, stages=STAGES)
    again = Recorder(
        sweep=SWEEP,
        ledger=driven.recorder._ledger,
        state=driven.state,
        listeners=[],
        on_end=lambda number: None,
    )
    again.on_trial_result(
        0, [], None, result_of(1, 0.5, trial=1, stages=RECOVERED).to_ray("dev/accuracy")
    )
    assert driven.state.trials[1].stages["teacher"].outcome == "reused"
    assert driven.state.trials[0].stages["teacher"].outcome == "trained"


# --- what is reported twice, and what cannot be written -------------------------------------------


def test_an_epoch_that_is_reported_again_is_recorded_once(driven):
    for epoch in (1, 2, 1, 2, 3):
        report(driven, epoch, 0.5)
    assert [event.epoch for event in driven.events] == [1, 2, 3]


def test_nothing_is_recorded_once_the_storage_is_full(driven):
    report(driven, 1, 0.5)
    message = "storage x: cannot write: No space left on device; make room"
    last = report(driven, 0, 0.5, failure=Failure(FailureKind.STORAGE, message))
    assert str(driven.recorder.error) == message
    end(driven, last)
    report(driven, 2, 0.5)
    assert kinds(driven) == [EpochReported]
    assert driven.closed == []
    driven.recorder.close(SweepEnd.INTERRUPTED)  # for which there is room
    assert driven.state.closed == "interrupted"
    assert read_sweep(driven.layout).closed == "interrupted"


def test_a_ledger_that_cannot_be_written_stops_the_sweep_and_raises_nothing(driven, monkeypatch):
    def full(*_, **__):
        raise StorageLostError("ledger: cannot write: No space left on device")

    monkeypatch.setattr(driven.recorder._ledger, "append", full)
    report(driven, 1, 0.5)
    assert "No space left" in str(driven.recorder.error)
    assert driven.events == []
    driven.recorder.close(SweepEnd.INTERRUPTED)
    assert driven.state.closed is None
