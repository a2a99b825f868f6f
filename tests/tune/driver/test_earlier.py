"""What a sweep takes from the ledgers of earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from magtkd.errors import SweepError
from magtkd.metrics import Scores
from tune.config import SweepConfig, check_sweep
from tune.driver.earlier import learn_from, lines_on
from tune.ledger import (
    EpochReported,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialsLearned,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)
from tune.samplers import EarlierTrial

SPACE = {
    "fusion.dropout": {"float": [0.1, 0.5]},
    "audio.distill.temperature": {"float": [1.0, 8.0], "tie": ["video.distill.temperature"]},
}
TIED = {"audio.distill.temperature": 4.0, "video.distill.temperature": 4.0}


def sweep_of(name: str, **sections: Any) -> SweepConfig:
    search = {"sampler": "cost_aware_tpe", **sections.pop("search", {})}
    return SweepConfig.model_validate(
        {"name": name, "space": SPACE, "search": search, "fusion": {"epochs": 9}} | sections
    )


def write_sweep(storage: Path, sweep: SweepConfig, *trials: dict[str, Any]) -> None:
    """A sweep of one table whose trials had these values, and dev scores of 0.5 and 0.6."""
    with open_ledger(SweepLayout(storage, sweep.name)) as ledger:
        config = sweep.model_dump(mode="json")
        ledger.append(SweepOpened(name=sweep.name, config=config, fingerprint="one"))
        for number, values in enumerate(trials):
            ledger.append(TrialSuggested(trial=number, values=values))
            for epoch, score in ((1, 0.5), (2, 0.6)):
                metrics = {"dev/weighted_f1": score, "dev/accuracy": score + 0.1}
                ledger.append(EpochReported(trial=number, epoch=epoch, metrics={**metrics}))
            ended = TrialEnded(
                trial=number,
                state=TrialStatus.COMPLETED,
                dev=Scores(0.7, 0.6),
                objectives=[0.6],
            )
            ledger.append(ended)


def learned(storage: Path, fingerprint: str = "one", **sections: Any) -> TrialsLearned:
    sweep = sweep_of("new", search={"learn_from": ["old"]}, **sections)
    (found,) = learn_from(sweep, SweepLayout(storage, "new"), fingerprint)
    return found


def test_trials_whose_values_are_in_the_space(tmp_path: Path) -> None:
    inside, outside = {"fusion.dropout": 0.2, **TIED}, {"fusion.dropout": 0.6, **TIED}
    write_sweep(tmp_path, sweep_of("old", seed=7), inside, outside)
    found = learned(tmp_path)
    assert found == TrialsLearned(
        source="old", is_same=True, trials=[EarlierTrial(inside, {1: 0.5, 2: 0.6})]
    )
    assert lines_on([found]) == [
        "search.learn_from: old: 1 trials have values of this space, of the same table and "
        "settings, so that their scores count"
    ]


def test_this_sweep_s_objective_counts_and_not_the_other_s(tmp_path: Path) -> None:
    write_sweep(tmp_path, sweep_of("old"), {"fusion.dropout": 0.2, **TIED})
    found = learned(tmp_path, objective={"metric": "dev/accuracy"})
    assert found.trials[0].curve == pytest.approx({1: 0.6, 2: 0.7})
    assert not found.is_same  # it chose its epochs by another metric
    assert learned(tmp_path, objective={"metric": "dev/f1/joy"}).trials == []


@pytest.mark.parametrize(
    ("fingerprint", "sections", "is_same"),
    [
        ("one", {}, True),
        ("one", {"seed": 5, "resources": {"fusion": {"cpu": 2}}}, True),
        ("two", {}, False),
        ("one", {"teacher": {"hidden_dim": 48}}, False),
        ("one", {"fusion": {"epochs": 8}}, False),
    ],
)
def test_scores_count_where_all_else_is_the_same(
    tmp_path: Path, fingerprint: str, sections: dict[str, Any], is_same: bool
) -> None:
    write_sweep(tmp_path, sweep_of("old"), {"fusion.dropout": 0.2, **TIED})
    found = learned(tmp_path, fingerprint, **sections)
    assert len(found.trials) == 1
    assert found.is_same == is_same


def test_a_name_that_the_other_sweep_did_not_search_has_its_configuration_s_value(
    tmp_path: Path,
) -> None:
    space = {"fusion.dropout": SPACE["fusion.dropout"]}
    write_sweep(tmp_path, sweep_of("old", space=space), {"fusion.dropout": 0.2})
    assert learned(tmp_path).trials[0].values == {
        "fusion.dropout": 0.2,
        "audio.distill.temperature": 2.0,
        "video.distill.temperature": 2.0,
    }


def test_values_that_are_tied_here_and_differ_there_are_not_in_the_space(tmp_path: Path) -> None:
    space = {name: {"float": [1.0, 8.0]} for name in TIED}
    write_sweep(
        tmp_path,
        sweep_of("old", space=space, fusion={"dropout": 0.2}),
        {**TIED, "video.distill.temperature": 3.0},
        TIED,
    )
    assert [one.values for one in learned(tmp_path).trials] == [{"fusion.dropout": 0.2, **TIED}]


def test_another_storage_by_its_path(tmp_path: Path) -> None:
    write_sweep(tmp_path / "there", sweep_of("old"), {"fusion.dropout": 0.2, **TIED})
    source = f"{tmp_path}/there/sweeps/old"
    sweep = sweep_of("new", search={"learn_from": [source]})
    (found,) = learn_from(sweep, SweepLayout(tmp_path / "here", "new"), "one")
    assert found.source == source
    assert len(found.trials) == 1
    assert not (tmp_path / "here").exists()


def test_what_the_ledger_has_is_not_read_again(tmp_path: Path) -> None:
    sweep = sweep_of("new", search={"learn_from": ["old"]})
    events = [TrialsLearned(source="old", is_same=True)]
    assert learn_from(sweep, SweepLayout(tmp_path, "new"), "one", events) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", r"^search\.learn_from: sweep 'nothing': not found in .*; there is old$"),
        ("new", r"^search\.learn_from: sweep 'new': is this one; name an earlier sweep$"),
        ("/nowhere/sweeps/old", r"^search\.learn_from: sweep 'old': there is no folder /nowhere"),
        ("../old", r"^search\.learn_from: sweep '\.\./old': not a name"),
    ],
)
def test_a_sweep_that_is_not_there(tmp_path: Path, source: str, message: str) -> None:
    write_sweep(tmp_path, sweep_of("old"))
    sweep = sweep_of("new", search={"learn_from": [source]})
    with pytest.raises(SweepError, match=message):
        learn_from(sweep, SweepLayout(tmp_path, "new"), "one")


def test_a_sampler_that_learns_from_no_other_sweep() -> None:
    sweep = sweep_of("new", search={"sampler": "tpe", "learn_from": ["old"]})
    message = r"^search\.learn_from: sampler tpe takes no trials .*; use cost_aware_tpe$"
    with pytest.raises(SweepError, match=message):
        check_sweep(sweep)
