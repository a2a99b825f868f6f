"""What is read of a sweep, over its whole space."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import pytest

from magtkd.data import make_corpus, read_corpus
from magtkd.errors import SweepError
from magtkd.pipeline import Source, source_of
from tune.config import SweepConfig
from tune.driver.preview import check_labels, unread_in_sweep

DATA = {"synthetic": {"num_dialogues": 11, "mean_length": 3}}
DEPTH = {"fusion.depth": {"int": [1, 3]}}
MODEL = {"fusion.model": {"choice": ["magt", "concat"]}}

BOTH = {"fusion.model": {"choice": ["magt", "sdt"]}}


def depth_of(model: str) -> dict[str, Any]:
    return {"fusion.depth": {"int": [1, 3], "when": {"fusion.model": model}}}


@pytest.fixture(scope="module")
def source() -> Source:
    return source_of(read_corpus(SweepConfig.model_validate({"data": DATA}).data))


@pytest.mark.parametrize(
    ("sections", "unread"),
    [
        ({"space": DEPTH}, ()),
        (
            {"space": DEPTH, "fusion": {"model": "concat"}},
            ("fusion.depth has no effect: model is concat; read by magt, sdt",),
        ),
        # Read by some trials is read.
        ({"space": DEPTH | MODEL}, ()),
        # A name that is only there where it is read.
        ({"space": MODEL | depth_of("magt")}, ()),
        (
            {"space": MODEL | depth_of("concat")},
            ("fusion.depth has no effect: model is concat; read by magt, sdt",),
        ),
        # A value of the file that no trial reads, and one that some do.
        (
            {"space": {"fusion.dropout": {"float": [0.1, 0.5]}}, "fusion": {"distill_weight": 0.5}},
            ("fusion.distill_weight has no effect: model is magt; read by sdt",),
        ),
        ({"space": BOTH, "fusion": {"distill_weight": 0.5}}, ()),
        (
            {"space": DEPTH, "search": {"sampler": "grid", "start": [{"fusion.depth": 2}]}},
            ("search.start has no effect: search.sampler is grid, which has its own points alone",),
        ),
        (
            {"space": {"fusion.depth": {"int": [1, 3], "prior": 2}}},
            (
                "space.fusion.depth.prior has no effect: search.sampler is tpe; read by "
                "cost_aware_tpe",
            ),
        ),
    ],
)
def test_settings_that_no_trial_reads(
    source: Source, sections: dict[str, Any], unread: tuple[str, ...]
) -> None:
    sweep = SweepConfig.model_validate({"data": DATA, **sections})
    assert unread_in_sweep(sweep, source) == unread


def test_a_tied_name_counts_for_itself(source: Source) -> None:
    space = {"fusion.weight_decay": {"float": [0.1, 0.5], "tie": ["audio.warmup"]}}
    sweep = SweepConfig.model_validate({"data": DATA, "space": space})
    (line,) = unread_in_sweep(sweep, source)
    assert line.startswith("audio.warmup has no effect: schedule is constant; read by linear")


def test_settings_of_another_scheduler_are_among_them(source: Source) -> None:
    scheduler = {"kind": "fifo", "grace_period": 3}
    sweep = SweepConfig.model_validate({"data": DATA, "space": DEPTH, "scheduler": scheduler})
    (line,) = unread_in_sweep(sweep, source)
    assert line.startswith("scheduler.grace_period has no effect: scheduler.kind is fifo")


@pytest.mark.parametrize("has_dev", [True, False])
def test_the_f1_of_a_label_needs_the_label_in_dev(has_dev: bool) -> None:
    """0 for every trial is no objective; a dev split that is carved out has every label or not."""
    data = {"synthetic": {"num_dialogues": 60, "mean_length": 5}}
    corpus = read_corpus(SweepConfig.model_validate({"data": data}).data)
    missing, *others = corpus.labels
    in_dev = pc.equal(corpus.table["split"], "dev")
    drop = pc.and_(in_dev, pc.equal(corpus.table["label"], missing)) if has_dev else in_dev
    corpus = make_corpus(corpus.table.filter(pc.invert(drop)), "table")

    def sweep_by(label: str) -> SweepConfig:
        objective = {"metric": f"dev/f1/{label}"}
        return SweepConfig.model_validate({"data": data, "space": DEPTH, "objective": objective})

    check_labels(sweep_by(others[0]), corpus)
    if has_dev:
        with pytest.raises(
            SweepError, match=rf"dev has no utterance '{missing}', .*; dev has \w+, "
        ):
            check_labels(sweep_by(missing), corpus)
    with pytest.raises(
        SweepError, match=r"objective\.metric: 'dev/f1/x': the table has no label .x."
    ):
        check_labels(sweep_by("x"), corpus)
