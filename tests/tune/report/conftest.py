"""Sweeps as ledgers that were written by hand, for reports on them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    Event,
    RaceEntry,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    Standing,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TestRevealed,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    encode_event,
)
from tune.report.subject import Subject

SPACE = {
    "fusion.dropout": {"float": [0.0, 0.9]},
    "fusion.learning_rate": {"float": [1e-5, 1e-1], "log": True},
    "fusion.depth": {"int": [1, 3]},
    "fusion.model": {"choice": ["magt", "concat"]},
}


@dataclass
class Story:
    """The events of a sweep, a second apart unless a time is given."""

    objective: Any = field(default_factory=lambda: {"metric": "dev/weighted_f1"})
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    name: str = "toy"
    events: list[Event] = field(default_factory=list)
    clock: int = 0

    def __post_init__(self) -> None:
        tree = {
            "name": self.name,
            "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
            "objective": self.objective,
            "space": self.space,
        }
        config = SweepConfig.model_validate(tree).model_dump(mode="json")
        self.add(SweepOpened, name=self.name, config=config, versions={"torch": "2.13.0"})

    def add(self, kind: Callable[..., Event], at: float | None = None, **fields: Any) -> None:
        """One event, at a second of the sweep's."""
        self.clock = self.clock + 1000 if at is None else 1_000_000 + round(1000 * at)
        self.clock = max(self.clock, 1_000_000)
        self.events.append(kind(time=self.clock, **fields))

    def trial(
        self,
        number: int,
        values: dict[str, Any],
        scores: Sequence[float | None] = (),
        *,
        state: str = "completed",
        objectives: Sequence[float | None] | None = None,
        **stages: StageRecord,
    ) -> None:
        """A trial with a report for each score, which completes with the best of them."""
        self.add(TrialSuggested, trial=number, values=values)
        if stages:
            self.add(StagesRecorded, trial=number, stages=stages)
        for epoch, score in enumerate(scores, start=1):
            metrics = {"dev/weighted_f1": score, "dev/loss": 1.0, "train/loss": 2.0}
            self.add(EpochReported, trial=number, epoch=epoch, metrics=metrics)
        if state == "running":
            return
        known = [score for score in scores if score is not None]
        fields: dict[str, Any] = {"message": "fusion: diverged"}
        if state == "completed":
            best = max(known, default=0.5)
            fields = {
                "epoch": 1 + list(scores).index(best) if known else 1,
                "dev": Scores(best, best, {"joy": best}),
                "objectives": list(objectives or [best]),
            }
        self.add(TrialEnded, trial=number, state=TrialStatus(state), **fields)

    def close(self) -> None:
        """The sweep is finished."""
        self.add(SweepClosed, reason=SweepEnd.FINISHED)

    def write(self, root: Path) -> SweepLayout:
        """The ledger of the sweep below a storage folder."""
        layout = SweepLayout(root, self.name)
        layout.folder.mkdir(parents=True, exist_ok=True)
        layout.ledger.write_bytes(b"".join(map(encode_event, self.events)))
        return layout


@pytest.fixture
def new_story() -> type[Story]:
    """Begins a sweep."""
    return Story


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Story], Subject]:
    """Writes a sweep's ledger, and reads it as the subject of a report."""

    def write_and_read(story: Story) -> Subject:
        story.write(tmp_path)
        return Subject.read(str(tmp_path), story.name)

    return write_and_read


@pytest.fixture
def searched(new_story: type[Story]) -> Story:
    """A sweep of 60 trials in which the learning rate decides, some stopped, some diverged."""
    story = new_story()
    for number in range(60):
        rate = 10 ** (-5 + 4 * (number * 0.618 % 1))
        values = {
            "fusion.dropout": round(0.9 * (number * 0.414 % 1), 3),
            "fusion.learning_rate": rate,
            "fusion.depth": 1 + number % 3,
            "fusion.model": ("magt", "concat")[number % 2],
        }
        score = 0.8 - 0.1 * abs(number * 0.618 % 1 - 0.5)
        state = {7: "stopped", 11: "diverged"}.get(number % 12, "completed")
        outcome = "reused" if number else "trained"
        story.trial(
            number,
            values,
            [score / 2, score] if state != "diverged" else [None],
            state=state,
            teacher=StageRecord("t", outcome, 0.0 if number else 3.0, 3.0, host="h1"),
            fusion=StageRecord(f"f{number}", "trained", 1.0, host="h1"),
        )
    story.close()
    return story


@pytest.fixture
def confirm() -> Callable[..., None]:
    """Writes the ledger of a sweep's confirmation, which chose the first of some configurations."""
    return _confirm


def _confirm(
    subject: Subject,
    configurations: Sequence[tuple[int, Sequence[float]]],
    test: Sequence[float] | None = None,
) -> None:
    """Each configuration is the sweep's trial that had it, with its score for each seed; `test` has
    the revealed ones of the chosen, for each seed."""
    state = subject.state
    entries = tuple(
        RaceEntry(trial=number, values=trial.values, score=trial.objectives[0])
        for number, _ in configurations
        if (trial := state.trials[number]).objectives and trial.objectives[0] is not None
    )
    seeds = tuple(range(1, 1 + len(configurations[0][1])))
    race = RaceSetup(name="confirm", sweep_id=state.sweep_id, entries=entries, seeds=seeds)
    sweep: Any = {"name": "toy", "config": state.config, "sweep_id": "c", "race": race}
    events: list[Event] = [SweepOpened(time=1, **sweep)]
    place = 0
    for entry, (_, scores) in zip(entries, configurations, strict=True):
        for index, (seed, score) in enumerate(zip(seeds, scores, strict=True)):
            events.append(TrialSuggested(time=2, trial=place, values=entry.values, seed=seed))
            ended: Any = {"state": TrialStatus.COMPLETED, "objectives": [score]}
            events.append(TrialEnded(time=3, trial=place, **ended))
            if test is not None and entry is entries[0]:
                revealed = Scores(test[index], test[index])
                events.append(TestRevealed(time=5, trial=place, test=revealed))
            place += 1
    standings = [
        Standing(trial=number, mean=mean, deviation=0.01, low=mean - 0.02, high=mean + 0.02, p=1.0)
        for number, scores in configurations
        if (mean := statistics.fmean(scores))
    ]
    chosen, num_seeds = configurations[0][0], len(seeds)
    decided: Any = {"standings": standings, "is_last": True, "chosen": chosen}
    events.append(RoundDecided(time=4, num_seeds=num_seeds, **decided))
    events.append(SweepClosed(time=6, reason=SweepEnd.FINISHED))
    layout = subject.layout.confirmation(1)
    layout.folder.mkdir(parents=True, exist_ok=True)
    layout.ledger.write_bytes(b"".join(map(encode_event, events)))
