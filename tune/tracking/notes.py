"""The descriptions of runs in MLflow: what a person reads first on a run's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import SweepState, TrialState

__all__ = ["race_note", "sweep_headline", "sweep_note", "trial_note"]


def sweep_headline(state: SweepState) -> str:
    """What a sweep looks for and how, in one line."""
    sweep = state.sweep
    parts = {
        "objective": " and ".join(f"{one.mode} {one.metric}" for one in sweep.objective),
        "sampler": sweep.search.sampler,
        "scheduler": sweep.scheduler.kind,
        "trials": sweep.search.most_trials or "as many as the budget allows",
    }
    return ", ".join(f"{name}: {value}" for name, value in parts.items())


def sweep_note(state: SweepState, best: TrialState | None = None) -> str:
    """The headline; the best trial so far; and as a table in Markdown, the search space with its
    values.

    Args:
        state: the sweep's.
        best: the best trial so far, of a sweep with one objective.
    """
    lines = [sweep_headline(state)]
    if best is not None and best.score is not None:
        epoch = "" if best.epoch is None else f", at epoch {best.epoch}"
        metric = state.objectives[0].metric
        lines += ["", f"best so far: trial {best.number}, {metric} {best.score:.4f}{epoch}"]
    space = state.sweep.space
    if space:
        own = "" if best is None else f" trial {best.number} |"
        lines += ["", f"| searched | over |{own}", "|---|---|" + ("---|" if own else "")]
    for name, entry in space.items():
        value = ""
        if best is not None:
            value = f" {_cell(json.dumps(best.candidate.current.get(name)))} |"
        lines.append(f"| {name} | {_words(entry)} |{value}")
    return "\n".join(lines)


def race_note(state: SweepState) -> str:
    """What a confirmation confirms, and as a table in Markdown, what it found so far."""
    assert state.race is not None
    race, metric = state.race, state.objectives[0].metric
    stages = "all stages" if race.vary == "all" else "fusion"
    lines = [
        f"the best {len(race.entries)} of the sweep with up to {len(race.seeds)} fresh seeds of "
        f"{stages} each, compared with confidence {race.confidence:g}"
    ]
    last = {one.trial: (decided, one) for decided in state.rounds for one in decided.standings}
    if state.chosen is not None:
        lines.append(f"chosen: trial {state.chosen}")
    if last:
        lines += ["", f"| trial | {metric}, mean | deviation | interval | seeds | |"]
        lines.append("|---|---|---|---|---|---|")
    for decided, one in last.values():
        if one.mean is None:
            lines.append(f"| {one.trial} | | | | | {_cell(one.failed or '')} |")
            continue
        lines.append(
            f"| {one.trial} | {one.mean:.4f} | {one.deviation:.4f} | {one.low:.4f} to "
            f"{one.high:.4f} | {decided.num_seeds} | {'worse' if one.is_out else ''} |"
        )
    return "\n".join(lines)


def trial_note(trial: TrialState, chosen: Mapping[str, float | None]) -> str:
    """How a trial ended, its dev metrics in the epoch `chosen`, and what it trained and reused."""
    scores = ", ".join(f"{name} {value:.4f}" for name, value in chosen.items() if value is not None)
    epoch = "" if trial.epoch is None else f"best epoch {trial.epoch}"
    parts = [
        f"{trial.state}: {trial.message}" if trial.message else trial.state,
        f"{epoch}: {scores}" if epoch and scores else epoch or scores,
        *_outcomes(trial.stages),
    ]
    return "; ".join(part for part in parts if part)


def _outcomes(stages: Mapping[str, StageRecord]) -> list[str]:
    reused = {name: one for name, one in stages.items() if one.outcome == Outcome.REUSED}
    trained = [f"{name} {stages[name].seconds:.1f} s" for name in stages if name not in reused]
    saved = sum(record.saved or 0.0 for record in reused.values())
    parts = []
    if trained:
        parts.append(f"trained {', '.join(trained)}")
    if reused:
        parts.append(f"reused {', '.join(reused)}" + (f" (saved {saved:.1f} s)" if saved else ""))
    return parts


def _words(entry: Mapping[str, Any]) -> str:
    """An entry of the search space, fit for a cell of a table."""
    words = ", ".join(f"{name} {json.dumps(value)}" for name, value in entry.items())
    return _cell(words)


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
