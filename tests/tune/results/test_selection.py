import json
from types import SimpleNamespace

import numpy as np
import pytest

from magtkd.config import load_config
from magtkd.errors import ArtifactError, SweepError
from magtkd.metrics import Scores, classification_metrics
from magtkd.pipeline import StageRecord, run_chain
from magtkd.store import Store
from tune.config import SweepConfig
from tune.ledger import (
    StagesRecorded,
    SweepLayout,
    SweepOpened,
    SweepState,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
    read_sweep,
)
from tune.results import best, choose, exported_config, reveal_test
from tune.space import Candidate

STAGE = {"epochs": 1, "hidden_dim": 8}
SWEEP = SweepConfig.model_validate(
    {
        "name": "toy",
        "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3, "num_emotions": 2}},
        "teacher": STAGE,
        "audio": STAGE,
        "video": STAGE,
        "fusion": STAGE | {"model": "concat"},
        "space": {
            "fusion.dropout": {"float": [0.0, 0.9]},
            "audio.distill.temperature": {
                "float": [1.0, 8.0],
                "tie": ["video.distill.temperature"],
            },
        },
    }
)
VALUES = {
    "fusion.dropout": 0.3,
    "audio.distill.temperature": 0.1 + 0.2 + 1,
    "video.distill.temperature": 0.1 + 0.2 + 1,
}


def write_ledger(layout, *events):
    with open_ledger(layout) as ledger:
        ledger.append(
            SweepOpened(
                name="toy",
                config=SWEEP.model_dump(mode="json"),
                versions={"torch": "2.13.0"},
            )
        )
        for number in range(2):
            ledger.append(TrialSuggested(trial=number, values=VALUES))
        for event in events:
            ledger.append(event)


@pytest.fixture
def layout(tmp_path):
    return SweepLayout(tmp_path, "toy")


def exported(tmp_path, layout):
    path = tmp_path / "best.yaml"
    path.write_text(exported_config(read_sweep(layout), 0))
    return load_config(path), path.read_text()


def test_an_exported_configuration_reads_back_as_the_trial_s(tmp_path, layout):
    state = TrialStatus.COMPLETED
    ended = TrialEnded(trial=0, state=state, epoch=3, dev=Scores(0.5, 0.25), objectives=[0.25])
    write_ledger(layout, ended)
    config, text = exported(tmp_path, layout)
    assert config == Candidate(values=VALUES).config(SWEEP.base)
    assert text.startswith("# Trial 0 of sweep toy, completed; dev chose epoch 3.\n")
    assert text.split("\n")[1] == "# Objective: max dev/weighted_f1 0.25."
    assert "torch 2.13.0" in text.split("\n")[3]


@pytest.mark.parametrize("several", [False, True])
def test_one_of_several_best_trials_is_named(several):
    objective = [{"metric": "dev/loss"}, {"metric": "dev/accuracy"}]
    state = SweepState()
    config = {"objective": objective if several else objective[0]}
    state.apply(SweepOpened(time=1, sweep_id="i", name="toy", config=config))
    for number, value in enumerate((0.5, 0.25, 0.75)):
        state.apply(TrialSuggested(time=2, trial=number, values=VALUES))
        values = [value, value][: 1 + several]
        ended = TrialEnded(time=3, trial=number, state=TrialStatus.COMPLETED, objectives=values)
        state.apply(ended)
    rows = best(state, top=None if several else 2)
    assert [row.trial for row in rows] == ([0, 1, 2] if several else [1, 0])
    assert choose(state, rows, 0) == 0
    with pytest.raises(SweepError, match=r"--trial 7: not among the best; name one of 0, 1"):
        choose(state, rows, 7)
    if several:
        with pytest.raises(SweepError, match=r"--trial: no trial of the Pareto.*name one: 0, 1, 2"):
            choose(state, rows, None)
        assert choose(state, rows[:1], None) == 0
    else:
        assert choose(state, rows, None) == 1


def test_what_a_population_changed_is_in_the_export(tmp_path, layout):
    base = VALUES | {"fusion.dropout": 0.7}
    changes = {4: {"dropout": 0.2}, 2: {"dropout": 0.1, "learning_rate": 1e-5}}
    candidate = Candidate(values=base, changes=changes)
    values = candidate.current
    changed = TrialChanged(trial=0, epoch=4, values=values, base=base, changes=changes)
    write_ledger(layout, changed)
    config, _ = exported(tmp_path, layout)
    assert config.fusion.dropout == 0.7
    assert config.fusion.changes == changes
    assert config == candidate.config(SWEEP.base)
    trials = read_sweep(layout).trials
    assert (trials[0].candidate, trials[1].candidate) == (candidate, Candidate(values=VALUES))


# --- test metrics -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one trained chain, and its keys."""
    store = Store(tmp_path_factory.mktemp("store"))
    artifacts = run_chain(SWEEP.base, store)
    return SimpleNamespace(store=store, artifacts=artifacts)


def sweep_of(layout, artifacts):
    stages = {
        stage: StageRecord(artifact.key, "trained", 1.0) for stage, artifact in artifacts.items()
    }
    write_ledger(layout, StagesRecorded(trial=0, stages=stages))


def test_test_metrics_are_those_of_the_artifact_s_logits(layout, trained):
    sweep_of(layout, trained.artifacts)
    scores = reveal_test(layout, 0, trained.store)
    data, fusion = trained.artifacts["data"].table, trained.artifacts["fusion"].table
    is_test = data["split"].to_numpy() == "test"
    logits = np.array(fusion["logits"].to_pylist())
    labels = json.loads(data.schema.metadata[b"magtkd"])["labels"]
    expected = classification_metrics(
        data["label"].to_numpy()[is_test], logits.argmax(axis=1)[is_test], labels
    )
    assert scores.accuracy == expected["accuracy"]
    assert scores.weighted_f1 == expected["weighted_f1"]


def test_revealing_is_recorded_once_and_for_one_trial(layout, trained):
    sweep_of(layout, trained.artifacts)
    first = reveal_test(layout, 0, trained.store)
    size = layout.ledger.stat().st_size
    assert reveal_test(layout, 0, trained.store) == first
    assert layout.ledger.stat().st_size == size
    trials = read_sweep(layout).trials
    assert (trials[0].test, trials[1].test) == (first, None)


def test_a_running_sweep_reveals_nothing(layout, trained):
    sweep_of(layout, trained.artifacts)
    with open_ledger(layout, resume=True), pytest.raises(SweepError, match="running"):
        reveal_test(layout, 0, trained.store)
    assert read_sweep(layout).trials[0].test is None


def test_an_artifact_that_is_gone_reveals_nothing(layout, trained):
    sweep_of(layout, trained.artifacts)
    with pytest.raises(ArtifactError, match="no such artifact"):
        reveal_test(layout, 0, Store(layout.root / "empty"))
    assert read_sweep(layout).trials[0].test is None
