"""What a careful reader would conclude from a sweep, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tune.ledger import TrialStatus
from tune.report.chosen import Dev
from tune.report.knob import Knob
from tune.report.progress import progress_of
from tune.report.subject import Subject, metric_title
from tune.space import Choice

__all__ = ["findings"]

FEW = 5
NEAR_END = 0.1


def findings(subject: Subject, knobs: Sequence[Knob], dev: Dev | None) -> list[str]:
    """One sentence for each thing that asks for something.

    Args:
        subject: the sweep.
        knobs: its searched names.
        dev: the chosen trial on dev, where its artifacts are there.
    """
    found: list[str] = []
    if len(subject.state.objectives) == 1 and len(subject.ranked) > 1:
        found += _ties(subject, dev)
    top = subject.ranked[: max(FEW, len(subject.ranked) // 20)]
    if len(subject.ranked) >= 2 * FEW:
        found += _last_gain(subject)
        found += _ends(subject, knobs, top)
        found += _epochs(subject, top)
    found += _failed(subject)
    return found


def _ties(subject: Subject, dev: Dev | None) -> Iterator[str]:
    """A dev of N utterances knows a share p of right ones to sqrt(p (1 - p) / N) at best."""
    chosen = subject.chosen
    is_share = not subject.metric.endswith("/loss")
    if dev is None or chosen is None or not is_share or not chosen.dev or not chosen.dev.accuracy:
        return
    number, share = int((dev.label >= 0).sum()), chosen.dev.accuracy
    error = 100 * math.sqrt(share * (1 - share) / max(number, 1))
    scores = subject.scores(subject.ranked)
    ties = int((np.abs(scores - scores[0]) <= error).sum()) - 1
    are = "are" if ties > 1 else "is"
    told = (
        f"{_counted(ties, 'other trial')} of {len(scores) - 1:,} {are} within that of the best, "
        "which may be the best by luck."
        if ties
        else "the best is ahead of all others by more than that."
    )
    yield f"Dev has {number:,} utterances, and knows a score to about ±{error:.1f} points: {told}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _last_gain(subject: Subject) -> Iterator[str]:
    found = progress_of(subject)
    if not found.spent[-1] or not found.is_gain.any():
        return
    last = int(np.flatnonzero(found.is_gain)[-1])
    share = 1 - found.spent[last] / found.spent[-1]
    after = len(found.numbers) - 1 - last
    if share > 0.4:
        yield (
            f"The last {_counted(after, 'trial')}, {100 * share:.0f} % of the compute, brought "
            "nothing: a budget that ends earlier (search.stop_when) would have found the same."
        )
    elif share < 0.1:
        yield (
            f"The best trial is among the last, {_counted(after, 'trial')} before the end: more "
            "trials may find a better one."
        )


def _ends(subject: Subject, knobs: Sequence[Knob], top: Sequence[int]) -> Iterator[str]:
    for knob in knobs:
        values = [subject.state.trials[number].values.get(knob.name) for number in top]
        shares = [knob.share(knob.position(value)) for value in values if value is not None]
        low, high = knob.ends
        is_number = not isinstance(knob.entry, Choice) or all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in knob.entry.values
        )
        if not shares or not is_number or low == high or len(knob.words) == 2:
            continue
        for end, is_there in (
            ("lower", [share <= NEAR_END for share in shares]),
            ("upper", [share >= 1 - NEAR_END for share in shares]),
        ):
            if sum(is_there) > 0.6 * len(top):
                yield (
                    f"{knob.name}: {sum(is_there)} of the best {len(top)} trials are at the "
                    f"{end} end of what was searched; widen it there."
                )


def _epochs(subject: Subject, top: Sequence[int]) -> Iterator[str]:
    trials = [subject.state.trials[number] for number in top]
    known = [
        (trial.epoch, trial.reports[-1].epoch) for trial in trials if trial.epoch and trial.reports
    ]
    late = sum(epoch >= last for epoch, last in known)
    early = sum(epoch <= max(1, last // 10) for epoch, last in known if last >= 3)
    if late > len(top) / 2:
        yield (
            f"{late} of the best {len(top)} trials are best in their last epoch: give "
            "fusion.epochs more."
        )
    elif early > len(top) / 2:
        yield (
            f"{early} of the best {len(top)} trials are best in their first epochs: a lower "
            "fusion.learning_rate, or a fusion.patience, may help."
        )


def _failed(subject: Subject) -> Iterator[str]:
    counts, total = subject.state.count(), len(subject.state.trials)
    number = counts[TrialStatus.FAILED] + counts[TrialStatus.DIVERGED]
    if number:
        first = subject.status.failures[0]
        yield (
            f"{_counted(number, 'trial')} of {total:,} diverged or failed, most with: "
            f"{first.message.rstrip('.')}."
        )
    if total and not subject.ranked:
        yield (
            f"None of {_counted(total, 'trial')} has completed, so there is no "
            f"{metric_title(subject.metric)} to compare yet."
        )
