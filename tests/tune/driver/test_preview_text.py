"""A preview as lines for people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tune.config import SweepConfig
from tune.driver.preview import Preview, StageCount, unshared_ranges
from tune.driver.preview_text import preview_lines
from tune.results import Seconds

TEMPERATURE = {"audio.distill.temperature": {"float": [1, 8], "tie": ["video.distill.temperature"]}}

PREVIEW = Preview(
    num_configurations=None,
    num_trials=40,
    stages={
        "data": StageCount(1, 0),
        "teacher": StageCount(2, 1),
        "audio": StageCount(None, 3),
        "video": StageCount(60, 6),
        "fusion": StageCount(None, 0),
    },
    is_whole=True,
    hints=("audio.x: a range",),
    notes=("a note",),
    seconds={
        "teacher": Seconds(300.0, 300.0, 300.0),
        "audio": Seconds(60.0, 40.0, 90.0),
        "video": Seconds(3.14, 2.0, 5.0),
    },
    workers={"teacher": 1, "audio": 2, "video": 2, "fusion": 2},
)


def sweep_of(space: dict[str, Any] | None = None, **search: Any) -> SweepConfig:
    return SweepConfig.model_validate({"name": "mosi", "search": search, "space": space or {}})


def test_what_is_known_and_what_is_not() -> None:
    assert preview_lines(sweep_of(num_trials=40, max_concurrent=4), PREVIEW) == [
        "sweep mosi: 40 trials, 4 at a time, by tpe; distinct configurations: unbounded "
        "(continuous range)",
        "data: 1 distinct, 0 exist",
        "teacher: 2 distinct, 1 exist; trains at most 1, 5 min each",
        "audio: unbounded (continuous range); trains at most 40, 60 s (40 s to 90 s) each, 40 min "
        "(26.7 min to 60 min) in all",
        "video: 60 distinct, 6 exist; trains at most 40, 3.1 s (2 s to 5 s) each, 2.09 min (80 s "
        "to 3.33 min) in all",
        "fusion: unbounded (continuous range); trains at most 40",
        "in all: at most 47.1 min (33 min to 68.3 min) of training, 26 min (19 min to 36.7 min) on "
        "2 workers",
        "how long training takes is not known of fusion: no sweep in this storage has trained that "
        "on these data",
        "audio.x: a range",
        "a note",
    ]


def test_only_a_budget_of_hours_ends_it() -> None:
    budget = {"hours": 8, "stage_hours": 40}
    preview = replace(PREVIEW, num_trials=None, num_configurations=7)
    lines = preview_lines(sweep_of(budget=budget), preview)
    assert lines[0] == (
        "sweep mosi: as many trials as end within 8 h or 40 h of training, 2 at a time, by tpe; "
        "distinct configurations: 7"
    )
    assert lines[3].endswith("; one for each trial, 60 s (40 s to 90 s) each")
    assert not any(line.startswith("in all") for line in lines)
    assert preview.total is None


def test_a_number_that_was_not_counted_to_its_end() -> None:
    lines = preview_lines(sweep_of(), replace(PREVIEW, is_whole=False, seconds={}))
    assert lines[2] == "teacher: at least 2 distinct, at least 1 exist; trains at most 40"
    assert not any(line.startswith("in all") for line in lines)


def test_nothing_that_is_left_to_train() -> None:
    stages = {stage: StageCount(4, 4) for stage in PREVIEW.stages}
    lines = preview_lines(sweep_of(), replace(PREVIEW, stages=stages, hints=(), notes=()))
    assert lines[1:] == [f"{stage}: 4 distinct, 4 exist" for stage in stages]


@pytest.mark.parametrize("number", [0, 10, 11, 12, 300])
def test_there_are_fewer_than_twenty_lines(number: int) -> None:
    preview = replace(PREVIEW, notes=tuple(f"note {one}" for one in range(number)))
    whole = preview_lines(sweep_of(), preview, whole=True)
    shown = preview_lines(sweep_of(), preview)
    assert len(shown) < 20
    if len(whole) < 20:
        assert shown == whole
    else:
        assert shown[:-1] == whole[: len(shown) - 1]
        assert shown[-1] == f"and {len(whole) - len(shown) + 1} more lines; --verbose has them"


@pytest.mark.parametrize(
    ("space", "stages"),
    [
        (TEMPERATURE, ["audio and video"]),
        ({"teacher.dropout": {"float": [0.1, 0.5]}, "fusion.depth": {"int": [1, 3]}}, ["teacher"]),
        ({"fusion.dropout": {"float": [0.1, 0.5]}}, []),
        ({"teacher.dropout": {"float": [0.1, 0.5], "step": 0.1}}, []),
        ({"teacher.dropout": {"choice": [0.1, 0.5]}, "seed": {"int": [0, 9]}}, []),
        ({"fusion.dropout": {"float": [0.1, 0.5], "tie": ["teacher.dropout"]}}, ["teacher"]),
    ],
)
def test_ranges_that_keep_trials_from_sharing_stages(
    space: dict[str, Any], stages: list[str]
) -> None:
    lines = unshared_ranges(sweep_of(space))
    assert len(lines) == len(stages)
    for line, stage in zip(lines, stages, strict=True):
        assert f"each trial trains {stage} and what follows anew; " in line
