"""The section on the chosen trial: its values, its scores, its predictions on dev."""

from __future__ import annotations

from magtkd.config import get_value
from magtkd.errors import ArtifactError, StorageLostError
from magtkd.metrics import classification_metrics
from tune.ledger import TrialState
from tune.report.asked import default_of, space_words
from tune.report.blocks import Block, Excerpts, Figure, Notes, Section, Table
from tune.report.chosen import (
    Dev,
    calibration_chart,
    confident_errors,
    confusion_chart,
    feature_chart,
    per_class_chart,
    read_dev,
)
from tune.report.knob import knobs_of
from tune.report.learning import trial_chart
from tune.report.subject import Subject
from tune.results import short_value

__all__ = ["chosen_section", "dev_of"]


def dev_of(subject: Subject) -> tuple[Dev | None, str]:
    """The chosen trial on dev; None, and why, where its artifacts are not here."""
    trial = subject.chosen
    if trial is None or not {"data", "fusion"} <= trial.stages.keys():
        return None, ""
    try:
        return read_dev(trial, subject.store), ""
    except (ArtifactError, StorageLostError) as error:
        return None, error.reason


def chosen_section(subject: Subject, dev: Dev | None, missing: str) -> Section | None:
    trial = subject.chosen
    if trial is None:
        return None
    blocks: list[Block] = [_value_table(subject, trial)]
    if trial.reports:
        blocks.append(Figure(trial_chart(trial, subject.metric)))
    if dev is not None:
        blocks += _dev_blocks(dev)
    elif missing:
        line = f"What it predicts is not shown, as its artifacts are not here: {missing}."
        blocks.append(Notes([line]))
    if trial.test is not None:
        blocks.append(_test_table(trial))
    return Section(f"The chosen trial: {trial.number}", blocks)


def _dev_blocks(dev: Dev) -> list[Block]:
    if not (dev.label >= 0).any():
        return [Notes(["No utterance of dev has a label, so that nothing can be scored on it."])]
    scores = classification_metrics(*dev.scored, dev.labels)["per_class"]
    rows = [
        (
            name,
            *(f"{100 * one[score]:.2f}" for score in ("f1", "precision", "recall")),
            str(one["support"]),
        )
        for name, one in scores.items()
    ]
    header = ("label", "dev F1 [points]", "precision [points]", "recall [points]", "utterances")
    blocks: list[Block] = [
        Figure(per_class_chart(dev)),
        Figure(confusion_chart(dev)),
        Figure(calibration_chart(dev)),
    ]
    features = feature_chart(dev)
    if features is not None:
        blocks.append(Figure(features))
    blocks.append(Table(header, rows))
    if errors := confident_errors(dev):
        caption = "The errors on dev of which the model was surest, and what was said around them."
        blocks.append(Excerpts(errors, caption))
    return blocks


def _value_table(subject: Subject, trial: TrialState) -> Table:
    knobs = {knob.name: knob for knob in knobs_of(subject)}
    base = subject.state.sweep.base
    rows = []
    for name, value in trial.candidate.current.items():
        given = get_value(base, name)
        rows.append(
            (
                name,
                short_value(value),
                short_value(given) if not hasattr(given, "model_dump") else "a section",
                default_of(name),
                space_words(knobs[name]) if name in knobs else "tied",
            )
        )
    header = ("name", "chosen", "in the sweep's file", "magtkd's default", "searched over")
    return Table(header, rows, "The chosen values beside those that one would have had unsearched.")


def _test_table(trial: TrialState) -> Table:
    assert trial.test is not None
    rows = [
        ("weighted F1", _percent(trial.test.weighted_f1)),
        ("accuracy", _percent(trial.test.accuracy)),
        ("macro F1", _percent(trial.test.macro_f1)),
        *((f"F1 of {label}", _percent(one)) for label, one in trial.test.per_class.items()),
    ]
    return Table(("test, revealed", "points"), rows, "Revealed for this trial; see the ledger.")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
