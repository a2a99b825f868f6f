"""The chosen trial on dev: what it predicts, where it errs, and how its features lie.

Everything here is of dev alone; the artifacts have test utterances, too, and none is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from magtkd.data import list_matrix, read_metadata
from magtkd.metrics import classification_metrics, confusion_matrix, with_label
from magtkd.store import Store
from tune.ledger import TrialState
from tune.report.charts import Axis, Chart, Floats, Heat, Marks, Panel
from tune.report.palette import ACCENT, GREY, MAIN, emotion

__all__ = [
    "Dev",
    "Excerpt",
    "Line",
    "calibration_chart",
    "confident_errors",
    "confusion_chart",
    "feature_chart",
    "per_class_chart",
    "read_dev",
]

MOST_EMBEDDED, FEWEST_EMBEDDED = 800, 50
NUM_ERRORS, NUM_AROUND = 8, 3
NUM_BINS = 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Dev:
    """The utterances of dev in order of their conversations, and what a trial made of them."""

    labels: tuple[str, ...]
    """The names of the classes."""
    label: Ints
    """[N], negative where there is none."""
    probabilities: Floats
    """[N, classes]."""
    features: Floats
    """[N, width], fused."""
    dialogue: list[str]
    speaker: list[str]
    text: list[str]

    @property
    def prediction(self) -> Ints:
        """[N] the class with the highest probability."""
        return cast(Ints, self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """[N] its probability."""
        return cast(Floats, self.probabilities.max(axis=1))

    @property
    def scored(self) -> tuple[Ints, Ints]:
        """Label and prediction of the utterances that have a label."""
        return with_label(self.label, self.prediction)


def read_dev(trial: TrialState, store: Store) -> Dev:
    """A trial's predictions on dev, from its artifacts.

    Args:
        trial: one that has completed.
        store: where its artifacts are.

    Raises:
        ArtifactError: an artifact is missing or damaged.
        StorageLostError: the storage does not answer.
    """
    data = store.read("data", trial.stages["data"].key).table
    fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
    is_dev = data["split"].to_numpy() == "dev"
    logits = list_matrix(fusion, "logits")[is_dev].astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    columns = data.filter(is_dev)
    return Dev(
        labels=read_metadata(data).labels,
        label=data["label"].to_numpy()[is_dev].astype(np.int64),
        probabilities=raised / raised.sum(axis=1, keepdims=True),
        features=list_matrix(fusion, "features")[is_dev].astype(np.float64),
        dialogue=columns["dialogue_id"].to_pylist(),
        speaker=columns["speaker"].to_pylist(),
        text=columns["text"].to_pylist(),
    )


def per_class_chart(dev: Dev) -> Chart:
    """F1 of each class, and its precision and recall."""
    scores = classification_metrics(*dev.scored, dev.labels)["per_class"]
    places = np.arange(len(dev.labels), dtype=np.float64)

    def values(name: str) -> Floats:
        return np.array([100 * scores[label][name] for label in dev.labels])

    support = [scores[label]["support"] for label in dev.labels]
    names = tuple(f"{label} ({number})" for label, number in zip(dev.labels, support, strict=True))
    f1 = values("f1")
    bars = [
        Marks(kind="bars", x=f1[[row]], y=places[[row]], color=emotion(row)[0])
        for row in range(len(dev.labels))
    ]
    marks = (
        *bars,
        Marks(
            kind="points",
            x=values("precision"),
            y=places,
            name="precision",
            color=ACCENT,
            shape="diamond",
            size=9,
        ),
        Marks(
            kind="points",
            x=values("recall"),
            y=places,
            name="recall",
            color=GREY,
            shape="square",
            size=8,
        ),
    )
    x = Axis(title="dev score [points]", range=(0.0, 100.0))
    return Chart(
        name="per-class",
        title="Scores of each class",
        caption=(
            "A bar is the F1 of a class, whose number of utterances in dev is behind its name: "
            "precision left of recall means that the class is predicted too often, right of it "
            "too rarely."
        ),
        panels=(Panel(x=x, y=Axis(names=names), marks=marks),),
        height=120 + 36 * len(dev.labels),
        width=420,
    )


def confusion_chart(dev: Dev) -> Chart:
    """The confusion matrix: shares of each row as colours, counts as text."""
    counts = confusion_matrix(*dev.scored, len(dev.labels))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = tuple(tuple(str(count) for count in row) for row in counts)
    heat = Heat(values=shares.astype(np.float64), texts=texts, title="% of label")
    panel = Panel(
        x=Axis(title="predicted", names=dev.labels),
        y=Axis(title="label", names=dev.labels),
        heat=heat,
    )
    return Chart(
        name="confusion",
        title="Confusion matrix",
        caption=(
            "Each row is a label in dev, with counts of what was predicted: a strong cell off "
            "the diagonal is a pair that the model mixes up."
        ),
        panels=(panel,),
        height=150 + 40 * len(dev.labels),
        width=420,
    )


def calibration_chart(dev: Dev) -> Chart:
    """How often predictions of some confidence are right."""
    label, prediction = dev.scored
    confidence = dev.confidence[dev.label >= 0]
    parts = np.array_split(np.argsort(confidence, kind="stable"), NUM_BINS)
    parts = [part for part in parts if len(part)]
    said = np.array([100 * confidence[part].mean() for part in parts])
    right = np.array([100 * (label == prediction)[part].mean() for part in parts])
    low = 100 / len(dev.labels)
    ends = np.array([low, 100.0])
    marks = (
        Marks(kind="line", x=ends, y=ends, name="calibrated", color=GREY, dashed=True, size=1.5),
        Marks(kind="line", x=said, y=right, color=MAIN),
        Marks(kind="points", x=said, y=right, color=MAIN, size=8),
    )
    panel = Panel(
        x=Axis(title="confidence [%]"), y=Axis(title="right predictions [%]"), marks=marks
    )
    return Chart(
        name="calibration",
        title="Confidence",
        caption=(
            "Each point is an equal part of dev by confidence: below the dashed line the model "
            "is surer than it may be."
        ),
        panels=(panel,),
        height=320,
        width=380,
    )


def feature_chart(dev: Dev) -> Chart | None:
    """The fused features in two dimensions, coloured by label; None where there are fewer than
    three."""
    known = np.flatnonzero(dev.label >= 0)
    if len(known) < 3:
        return None
    every = len(known)
    if every > MOST_EMBEDDED:
        known = known[np.linspace(0, every - 1, MOST_EMBEDDED).astype(int)]
    places, method = _embedded(dev.features[known])
    label, prediction = dev.label[known], dev.prediction[known]
    marks = []
    for index, name in enumerate(dev.labels):
        color, shape = emotion(index)
        is_label = label == index
        words = [dev.labels[one] for one in prediction[is_label]]
        marks.append(
            Marks(
                kind="points",
                x=places[is_label, 0],
                y=places[is_label, 1],
                name=name,
                color=color,
                shape=shape,
                size=7,
                opacity=0.8,
                labels=tuple(f"{name}, predicted {word}" for word in words),
            )
        )
    caption = (
        f"Each point is an utterance of dev by its fused features ({method}), coloured by its "
        "label: classes that lie in each other are those that the model cannot tell apart."
    )
    if every > len(known):
        caption += f" Of {every:,} utterances, {len(known):,} are drawn, evenly."
    panel = Panel(
        x=Axis(title="first dimension"), y=Axis(title="second dimension"), marks=tuple(marks)
    )
    return Chart(
        name="features",
        title="Fused features",
        caption=caption,
        panels=(panel,),
        height=400,
        width=420,
    )


def _embedded(features: Floats) -> tuple[Floats, str]:
    """Features [N, width] as [N, 2]: t-SNE (van der Maaten and Hinton 2008), or PCA where there are
    too few for neighbourhoods, or nothing that differs."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count, width = features.shape
    components = min(30, count, width)
    is_flat = np.ptp(features, axis=0).max(initial=0.0) == 0
    if is_flat or components < 2:
        padded = np.zeros((count, 2))
        padded[:, : min(2, width)] = (features - features.mean(axis=0))[:, :2]
        return padded, "as they are"
    reduced = PCA(components, random_state=0).fit_transform(features)
    if count < FEWEST_EMBEDDED:
        return reduced[:, :2], "PCA"
    embedded = TSNE(2, init="pca", random_state=0, perplexity=30 if count > 100 else 15)
    # Threads that wait for each other, beside a sweep that has the cores, take ten times as long.
    with threadpool_limits(1):
        return embedded.fit_transform(reduced).astype(np.float64), "t-SNE"


# --- errors -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """An utterance of a conversation."""

    speaker: str
    text: str
    label: str
    predicted: str
    is_error: bool
    """Whether it is the one that the excerpt is about."""


@dataclass(frozen=True)
class Excerpt:
    """An error, with the conversation around it."""

    title: str
    lines: tuple[Line, ...]


def confident_errors(dev: Dev, number: int = NUM_ERRORS) -> list[Excerpt]:
    """The wrong predictions of the highest confidence, each with the utterances around it."""
    wrong = np.flatnonzero((dev.label >= 0) & (dev.label != dev.prediction))
    ranked = wrong[np.argsort(-dev.confidence[wrong], kind="stable")][:number]
    return [_excerpt(dev, int(row)) for row in ranked]


def _excerpt(dev: Dev, row: int) -> Excerpt:
    around = range(max(0, row - NUM_AROUND), min(len(dev.label), row + NUM_AROUND + 1))
    rows = [one for one in around if dev.dialogue[one] == dev.dialogue[row]]
    title = (
        f"{dev.labels[dev.label[row]]}, predicted {dev.labels[dev.prediction[row]]} with "
        f"{100 * dev.confidence[row]:.0f} %, in conversation {dev.dialogue[row]}"
    )
    return Excerpt(title, tuple(_lines(dev, rows, row)))


def _lines(dev: Dev, rows: Sequence[int], error: int) -> list[Line]:
    return [
        Line(
            speaker=dev.speaker[row],
            text=dev.text[row] or "(no text)",
            label=dev.labels[dev.label[row]] if dev.label[row] >= 0 else "none",
            predicted=dev.labels[dev.prediction[row]],
            is_error=row == error,
        )
        for row in rows
    ]
