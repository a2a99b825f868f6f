import json
from types import SimpleNamespace

import pytest

from magtkd.errors import StorageError
from tune.config.sweep import SweepConfig
from tune.driver.recorder import Recorder, chosen_report
from tune.ledger.file import open_ledger, read_sweep
from tune.ledger.state import Report, SweepState

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
STAGES = {"teacher": {"key": "aa", "outcome": "trained", "seconds": 3.0}}


def metrics_of(accuracy):
    return {
        "train/loss": 1.0,
        "dev/loss": 2.0,
        "dev/accuracy": accuracy,
        "dev/weighted_f1": accuracy / 2,
        "dev/f1/joy": 0.25,
    }


@pytest.fixture
def told(tmp_path):
    """A recorder whose ledger has two trials; what it tells its listener, and what it closes."""
    with open_ledger(tmp_path / "toy") as ledger:
        state, heard, closed = SweepState(), [], []
        config = SWEEP.model_dump(mode="json")
        state.apply(ledger.append("sweep_opened", name="toy", config=config))
        recorder = Recorder(SWEEP, ledger, state, [heard.append], closed.append)
        for number in range(2):
            recorder.record("trial_suggested", trial=number, values=VALUES)
        heard.clear()
        yield SimpleNamespace(
            recorder=recorder, heard=heard, closed=closed, state=state, folder=tmp_path / "toy"
        )


def report(told, epoch, accuracy, trial=0, **fields):
    result = metrics_of(accuracy) | {"epoch": epoch, "number": trial, "time_total_s": 9.0} | fields
    told.recorder.on_trial_result(0, [], None, result)
    return result


def end(told, last_result, trial=0):
    ray_trial = SimpleNamespace(
        config={"trial": trial}, trial_id=f"ray-{trial}", last_result=last_result
    )
    told.recorder.on_trial_complete(0, [], ray_trial)


def kinds(told):
    return [event["kind"] for event in told.heard]


def test_the_chosen_report_is_the_first_best():
    reports = [
        Report(epoch, 0, {"dev/loss": loss, "dev/accuracy": accuracy})
        for epoch, loss, accuracy in [(1, 0.5, 0.1), (2, None, None), (3, 0.3, 0.7), (4, 0.3, 0.7)]
    ]
    assert chosen_report(reports, "accuracy").epoch == 3
    assert chosen_report(reports, "loss").epoch == 3
    assert chosen_report(reports[1:2], "loss") is None


def test_a_result_becomes_events_in_order(told):
    report(told, 1, 0.5, stages=json.dumps(STAGES))
    assert kinds(told) == ["trial_stages", "trial_report"]
    assert told.heard[1]["metrics"] == metrics_of(0.5)
    assert told.heard[1]["epoch"] == 1


def test_a_stage_is_told_once(told):
    report(told, 1, 0.5, stages=json.dumps(STAGES))
    again = {"teacher": {"key": "aa", "outcome": "reused", "seconds": 0.0}}
    report(told, 2, 0.5, stages=json.dumps(again))
    assert kinds(told) == ["trial_stages", "trial_report", "trial_report"]
    assert told.state.trials[0].stages["teacher"].outcome == "trained"


def test_a_completed_trial_has_the_artifact_s_epoch(told):
    fusion = json.dumps({"key": "ff", "outcome": "trained", "seconds": 1.5})
    report(told, 1, 0.5, fusion=fusion)
    chosen = json.dumps({"epoch": 1, "metrics": metrics_of(0.5)})
    last = report(told, 2, 0.25, fusion=fusion, done=True, state="completed", chosen=chosen)
    end(told, last)
    assert kinds(told) == ["trial_report", "trial_report", "trial_stages", "trial_ended"]
    trial = told.state.trials[0]
    assert (trial.state, trial.epoch, trial.objectives) == ("completed", 1, [0.5])
    assert trial.dev["accuracy"] == 0.5
    assert trial.dev["per_class"]["joy"] == 0.25
    assert trial.stages["fusion"].outcome == "trained"
    assert told.closed == [0]


def test_a_stopped_trial_has_its_best_epoch_so_far(told):
    fusion = json.dumps({"key": "ff", "outcome": "trained", "seconds": 1.5})
    report(told, 1, 0.5)
    last = report(told, 2, 0.25, fusion=fusion)
    end(told, last)
    trial = told.state.trials[0]
    assert (trial.state, trial.epoch, trial.objectives) == ("stopped", 1, [0.5])
    assert trial.stages["fusion"].outcome == "stopped"


def test_a_diverged_trial_has_a_message_and_no_score(told):
    report(told, 1, 0.5)
    last = {
        "epoch": 0,
        "number": 0,
        "done": True,
        "state": "diverged",
        "message": "fusion: diverged",
    }
    told.recorder.on_trial_result(0, [], None, last)
    end(told, last)
    trial = told.state.trials[0]
    assert (trial.state, trial.message) == ("diverged", "fusion: diverged")
    assert trial.dev is trial.objectives is trial.epoch is None
    assert len(trial.reports) == 1


def test_a_metric_that_is_not_finite_is_recorded_as_null(told):
    report(told, 1, float("nan"))
    assert told.heard[0]["metrics"]["dev/accuracy"] is None


def test_a_trial_ends_once(told):
    last = report(told, 1, 0.5)
    end(told, last)
    end(told, last)
    assert kinds(told).count("trial_ended") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("first\nthe cause"), "the cause"),
        (RuntimeError(""), "the trial's process died"),
        (None, "the trial's process died"),
    ],
)
def test_an_error_fails_the_trial_in_one_line(told, error, message):
    ray_trial = SimpleNamespace(
        config={"trial": 1}, trial_id="ray-1", last_result=None, get_error=lambda: error
    )
    told.recorder.on_trial_error(0, [], ray_trial)
    trial = told.state.trials[1]
    assert (trial.state, trial.message) == ("failed", message)


# --- population based training ----------------------------------------------------------------


def descend(told, epoch, changes, base=VALUES):
    return report(told, epoch, 0.5, changes=json.dumps(changes), base=json.dumps(base))


def changed(told):
    return [event for event in told.heard if event["kind"] == "trial_changed"]


def test_changed_values_are_told_once_and_whole(told):
    report(told, 1, 0.5)
    base = VALUES | {"fusion.detach_anchor": True}
    for epoch in (2, 3):
        descend(told, epoch, {2: {"dropout": 0.25}}, base)
    [event] = changed(told)
    assert event["epoch"] == 2
    assert event["values"] == {"fusion.dropout": 0.25, "fusion.detach_anchor": True}
    trial = told.state.trials[0]
    assert (trial.base, trial.lineage) == (base, {2: {"dropout": 0.25}})


def test_a_trial_that_took_over_another_s_values_unchanged_has_them(told):
    base = VALUES | {"fusion.dropout": 0.125}
    report(told, 1, 0.5)
    descend(told, 4, {}, base)
    [event] = changed(told)
    assert (event["epoch"], event["values"]) == (4, base)
    assert told.state.trials[0].base == base


def test_a_trial_that_went_on_from_its_own_session_did_not_change(told):
    report(told, 1, 0.5)
    descend(told, 2, {})
    assert changed(told) == []


def test_a_trial_that_starts_anew_has_its_own_values_again(told):
    descend(told, 2, {2: {"dropout": 0.25}}, VALUES | {"fusion.dropout": 0.75})
    report(told, 1, 0.5)
    assert changed(told)[-1]["values"] == VALUES
    trial = told.state.trials[0]
    assert (trial.base, trial.lineage) == (VALUES, {})


def test_a_reader_of_the_ledger_learns_the_same(told):
    report(told, 1, 0.5, stages=json.dumps(STAGES))
    descend(told, 2, {2: {"dropout": 0.25}})
    end(told, descend(told, 3, {2: {"dropout": 0.25}}))
    assert read_sweep(told.folder).trials == told.state.trials


# --- what was trained before something died ---------------------------------------------------


def test_a_stage_that_was_trained_but_not_told_counts_as_trained_once(told):
    found = {"teacher": {"key": "aa", "outcome": "recovered", "seconds": 3.0}}
    for trial in (0, 1):
        report(told, 1, 0.5, trial=trial, stages=json.dumps(found))
    first, second = (told.state.trials[number].stages["teacher"] for number in (0, 1))
    assert (first.outcome, first.seconds) == ("trained", 3.0)
    assert (second.outcome, second.seconds, second.saved) == ("reused", 0.0, 3.0)


def test_a_fusion_whose_worker_died_after_its_last_epoch_is_recorded_once(told):
    fusion = {"key": "ff", "outcome": "trained", "seconds": 1.5}
    report(told, 1, 0.5, fusion=json.dumps(fusion))
    found = {"fusion": fusion | {"outcome": "recovered", "seconds": 2.0}}
    chosen = json.dumps({"epoch": 2, "metrics": metrics_of(0.5)})
    last = report(
        told, 2, 0.5, stages=json.dumps(found), done=True, state="completed", chosen=chosen
    )
    end(told, last)
    assert kinds(told) == ["trial_report", "trial_stages", "trial_report", "trial_ended"]
    assert told.state.trials[0].stages["fusion"].seconds == 2.0


def test_a_stage_that_the_ledger_knows_as_trained_is_reused_after_a_resume(told):
    report(told, 1, 0.5, stages=json.dumps(STAGES))
    again = Recorder(SWEEP, told.recorder._ledger, told.state, [], lambda number: None)
    found = {"teacher": {"key": "aa", "outcome": "recovered", "seconds": 3.0}}
    again.on_trial_result(
        0, [], None, {"epoch": 1, "number": 1, "stages": json.dumps(found), **metrics_of(0.5)}
    )
    assert told.state.trials[1].stages["teacher"].outcome == "reused"
    assert told.state.trials[0].stages["teacher"].outcome == "trained"


# --- what is told twice, and what cannot be written -------------------------------------------


def test_an_epoch_that_is_told_again_is_recorded_once(told):
    for epoch in (1, 2, 1, 2, 3):
        report(told, epoch, 0.5)
    assert [event["epoch"] for event in told.heard] == [1, 2, 3]


def test_nothing_is_recorded_once_the_storage_is_full(told):
    report(told, 1, 0.5)
    message = "storage x: cannot write: No space left on device; make room"
    last = report(told, 0, 0.5, state="storage", message=message, done=True)
    assert str(told.recorder.error) == message
    end(told, last)
    report(told, 2, 0.5)
    assert kinds(told) == ["trial_report"]
    assert told.closed == []
    told.recorder.close("interrupted")  # of which there is room to tell
    assert told.state.closed == "interrupted"
    assert read_sweep(told.folder).closed == "interrupted"


def test_a_ledger_that_cannot_be_written_stops_the_sweep_and_raises_nothing(told, monkeypatch):
    def full(*_, **__):
        raise StorageError("ledger: cannot write: No space left on device")

    monkeypatch.setattr(told.recorder._ledger, "append", full)
    report(told, 1, 0.5)
    assert "No space left" in str(told.recorder.error)
    assert told.heard == []
    told.recorder.close("interrupted")
    assert told.state.closed is None
