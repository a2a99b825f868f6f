"""Events of a ledger become the right parameters, metrics, tags and files of runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from magtkd.metrics import Scores
from tune.ledger import (
    EpochReported,
    Event,
    RaceEntry,
    RaceSetup,
    RoundDecided,
    Standing,
    SweepChanged,
    SweepClosed,
    SweepEnd,
    SweepOpened,
    SweepResumed,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    Warned,
)
from tune.tracking.projection import NOTE_TAG, Projection

CONFIG = {
    "name": "mosi",
    "data": {"path": "mosi.parquet"},
    "objective": [{"metric": "dev/weighted_f1", "mode": "max"}],
    "search": {"sampler": "tpe", "num_trials": 7},
    "space": {"fusion.depth": {"int": [1, 3]}},
}
VALUES = {"fusion.depth": 2, "fusion.dropout": 0.1, "teacher.encoder": "tiny"}


class Story:
    """Events with a clock, folded one after another."""

    def __init__(self, config: dict[str, Any] = CONFIG, race: RaceSetup | None = None) -> None:
        self.projection = Projection()
        self._time = 1000
        opened = SweepOpened(name="mosi", config=config, sweep_id="1", fingerprint="1", race=race)
        self.apply(opened)

    def apply(self, event: Event) -> None:
        self._time += 1
        self.projection.apply(msgspec.structs.replace(event, time=self._time))

    def suggest(self, number: int) -> None:
        self.apply(TrialSuggested(trial=number, values=VALUES))

    def end(self, number: int, value: float) -> None:
        self.apply(
            TrialEnded(
                trial=number,
                state=TrialStatus.COMPLETED,
                epoch=3,
                objectives=[value],
                dev=Scores(0.7, value),
            )
        )


def test_a_sweep_has_what_it_searches_as_parameters_and_the_rest_in_a_file() -> None:
    update = Story().projection.updates[None]
    assert set(update.params) == {"objective", "search.sampler", "search.num_trials"}
    assert "path: mosi.parquet" in update.files["sweep.yaml"]
    assert update.tags[NOTE_TAG].startswith("objective: max dev/weighted_f1, sampler: tpe")


def test_a_limit_that_ended_the_sweep_is_a_tag_and_unset_ones_are_nothing() -> None:
    search = {"sampler": "tpe", "num_trials": None, "budget": {"hours": 2.0, "trials": None}}
    story = Story(CONFIG | {"search": search})
    story.suggest(0)
    why = "search.budget.hours: 2 h are over"
    story.apply(SweepClosed(reason=SweepEnd.FINISHED, why=why))
    update = story.projection.updates[None]
    assert set(update.params) == {"objective", "search.sampler", "search.budget.hours"}
    assert (update.tags["magtkd.ended_by"], update.status) == (why, "FINISHED")
    assert "trials: as many as the budget allows" in update.tags[NOTE_TAG]
    trial = story.projection.updates[0]
    assert (trial.status, trial.tags["magtkd.state"]) == ("KILLED", "interrupted")


def test_what_was_changed_is_a_tag_as_parameters_stay_what_they_were() -> None:
    story = Story()
    story.projection.updates.clear()  # sent
    story.apply(SweepResumed())
    story.apply(SweepChanged(changes={"search.num_trials": 70}))
    story.apply(SweepChanged(changes={"search.budget.hours": 2.0}))
    update = story.projection.updates[None]
    assert update.params == {}
    assert update.tags["magtkd.changed"] == (
        '{"search.num_trials": 70, "search.budget.hours": 2.0}'
    )
    assert "trials: 70" in update.tags[NOTE_TAG]
    assert "num_trials: 70" in update.files["sweep.yaml"]


def test_chosen_metrics_have_no_step_so_that_mlflow_draws_bars() -> None:
    story = Story()
    story.suggest(5)
    story.end(5, 0.6)
    update = story.projection.updates[5]
    points = [(name, value, step) for name, value, _, step in update.metrics]
    assert points == [("chosen/dev/weighted_f1", 0.6, 0), ("chosen/dev/accuracy", 0.7, 0)]
    assert update.tags["magtkd.epoch"] == "3"
    assert update.tags[NOTE_TAG].startswith("completed; best epoch 3: dev/weighted_f1 0.6000")
    assert '"epoch": 3' in update.files["report.json"]


@pytest.mark.parametrize(("mode", "best", "value"), [("max", 2, 0.9), ("min", 7, 0.2)])
def test_the_best_is_followed_and_the_lower_number_wins_among_equals(
    mode: str, best: int, value: float
) -> None:
    story = Story(CONFIG | {"objective": [{"metric": "dev/weighted_f1", "mode": mode}]})
    ended = [(3, 0.9), (2, 0.9), (11, 0.2), (7, 0.2), (5, 0.5)]
    for number, _ in ended:
        story.suggest(number)
    for number, score in ended:
        story.end(number, score)
    update = story.projection.updates[None]
    points = [(point, step) for name, point, _, step in update.metrics if name.startswith("best/")]
    assert points[-1] == (value, 5)
    assert update.tags["magtkd.best"] == f"trial-{best:04d}"


def test_changed_values_are_metrics_and_tags_never_parameters() -> None:
    story = Story()
    story.suggest(5)
    for epoch, dropout in ((2, 0.2), (4, 0.3)):
        values = {"fusion.dropout": dropout, "fusion.detach_anchor": epoch == 4}
        story.apply(TrialChanged(trial=5, epoch=epoch, values=values, base=VALUES))
    update = story.projection.updates[5]
    points = [(step, value) for name, value, _, step in update.metrics if "dropout" in name]
    assert points == [(0, 0.1), (2, 0.2), (4, 0.3)]
    assert update.tags["values.fusion.detach_anchor"] == '{"2": false, "4": true}'
    assert set(update.params) == set(VALUES)


def test_the_last_warning_is_shown() -> None:
    story = Story()
    for message in ("no space at s3://ann:pa@host/x", "no space at s3://bob:pa@host/y"):
        story.apply(Warned(message=message))
    tag = story.projection.updates[None].tags["magtkd.warning"]
    assert tag == "no space at s3://***@host/y"


def test_names_that_mlflow_refuses_stay_distinct() -> None:
    story = Story()
    story.suggest(0)
    names = ["dev/f1/joy!", "dev/f1/joy?", "dev/f1/", "dev/f1/..", "dev/f1/" + "x" * 300, "ok/a.b"]
    story.apply(EpochReported(trial=0, epoch=1, metrics=dict.fromkeys(names, 0.5)))
    sent = [name for name, _, _, step in story.projection.updates[0].metrics if step == 1]
    assert len(set(sent)) == len(names)
    assert max(map(len, sent)) <= 250
    assert "ok/a.b" in sent


def test_the_sweep_s_description_has_the_best_trial_so_far() -> None:
    story = Story()
    address = "#/experiments/1/runs?viewStateShareKey=magtkd-best-first"
    story.projection.links = {"Best first": address}
    for number, value in enumerate([0.5, 0.75, 0.625]):
        story.suggest(number)
        story.end(number, value)
    lines = story.projection.updates[None].tags[NOTE_TAG].splitlines()
    assert "best so far: trial 1, dev/weighted_f1 0.7500, at epoch 3" in lines
    assert lines[-5:] == [
        "| searched | over | trial 1 |",
        "|---|---|---|",
        "| fusion.depth | int [1, 3] | 2 |",
        "",
        f"[Best first]({address})",
    ]


# --- confirmations ----------------------------------------------------------------------------

RACE = RaceSetup(
    name="confirm-2",
    sweep_id="7",
    entries=(
        RaceEntry(trial=12, values=VALUES, score=0.75),
        RaceEntry(trial=3, values={"fusion.depth": 1}, score=0.5),
    ),
    seeds=(1, 4),
)


def test_runs_of_a_confirmation_are_named_by_configuration_and_seed() -> None:
    story = Story(race=RACE)
    story.apply(TrialSuggested(trial=0, values=VALUES, seed=4))
    story.end(0, 0.6)
    own, run = story.projection.updates[None], story.projection.updates[0]
    assert own.name == "confirm-2"
    assert own.params == {
        "trials": "[12, 3]",
        "seeds": "[1, 4]",
        "confidence": "0.95",
        "vary": "all",
        "objective": '[{"metric": "dev/weighted_f1", "mode": "max"}]',
    }
    assert run.name == "confirm-2/trial-0012/seed-4"
    assert run.params == {name: str(value) for name, value in VALUES.items()} | {"seed": "4"}
    assert run.tags["magtkd.confirms"] == "trial-0012"
    # The best of some seeds is nothing to look at.
    assert (own.metrics, "magtkd.best" in own.tags) == ([], False)


def test_what_a_round_decides_is_in_the_confirmation_s_run() -> None:
    story = Story(race=RACE)
    figures = {"deviation": 0.125, "low": 0.5, "high": 0.75, "gap": 0.0, "p": 1.0}
    failed = Standing(trial=3, is_out=True, failed="diverged | with seed 1")
    standings = [Standing(trial=12, mean=0.625, **figures), failed]
    story.apply(RoundDecided(num_seeds=2, standings=standings, is_last=True, chosen=12))
    own = story.projection.updates[None]
    assert own.metrics == [("mean/trial-0012", 0.625, 1002, 2)]
    assert own.tags["magtkd.chosen"] == "trial-0012"
    lines = own.tags[NOTE_TAG].splitlines()
    assert lines[1] == "chosen: trial 12"
    assert lines[5:] == [
        "| 12 | 0.6250 | 0.1250 | 0.5000 to 0.7500 | 2 |  |",
        "| 3 | | | | | diverged \\| with seed 1 |",
    ]
