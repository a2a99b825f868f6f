import json
from types import SimpleNamespace

import numpy as np
import pytest

from magtkd.config import load_config
from magtkd.errors import ArtifactError, SweepError
from magtkd.metrics import classification_metrics
from magtkd.pipeline import run_chain
from magtkd.store.store import Store
from tune.config.sweep import SweepConfig, base_of, config_of
from tune.ledger.file import open_ledger, read_sweep
from tune.results.selection import exported_config, reveal_test, trial_config

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


def write_ledger(folder, *events):
    with open_ledger(folder) as ledger:
        ledger.append(
            "sweep_opened",
            name="toy",
            config=SWEEP.model_dump(mode="json"),
            versions={"torch": "2.13.0"},
        )
        for number in range(2):
            ledger.append("trial_suggested", trial=number, values=VALUES)
        for event in events:
            ledger.append(**event)


def exported(tmp_path, folder):
    path = tmp_path / "best.yaml"
    path.write_text(exported_config(read_sweep(folder), 0))
    return load_config(path), path.read_text()


def test_an_exported_configuration_reads_back_as_the_trial_s(tmp_path):
    folder = tmp_path / "toy"
    dev = {"accuracy": 0.5, "weighted_f1": 0.25, "per_class": {}}
    ended = {"kind": "trial_ended", "trial": 0, "state": "completed", "epoch": 3, "dev": dev}
    write_ledger(folder, ended)
    config, text = exported(tmp_path, folder)
    assert config == config_of(SWEEP, VALUES)
    assert text.startswith("# Trial 0 of sweep toy, completed after epoch 3:\n")
    assert "torch 2.13.0" in text.split("\n")[2]


def test_what_a_population_changed_is_in_the_export(tmp_path):
    folder = tmp_path / "toy"
    base = VALUES | {"fusion.dropout": 0.7}
    changes = {4: {"dropout": 0.2}, 2: {"dropout": 0.1, "learning_rate": 1e-5}}
    changed = {"kind": "trial_changed", "trial": 0, "epoch": 4, "values": {"fusion.dropout": 0.2}}
    write_ledger(folder, changed | {"base": base, "changes": changes})
    config, _ = exported(tmp_path, folder)
    assert config.fusion.dropout == 0.7
    assert config.fusion.changes == changes
    assert config == trial_config(read_sweep(folder), 0)
    assert trial_config(read_sweep(folder), 1) == config_of(SWEEP, VALUES)


# --- test metrics -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one trained chain, and its keys."""
    store = Store(tmp_path_factory.mktemp("store"))
    artifacts = run_chain(base_of(SWEEP), store)
    return SimpleNamespace(store=store, artifacts=artifacts)


def sweep_of(folder, artifacts):
    stages = {
        stage: {"key": artifact.key, "outcome": "trained", "seconds": 1.0}
        for stage, artifact in artifacts.items()
    }
    write_ledger(folder, {"kind": "trial_stages", "trial": 0, "stages": stages})


def test_test_metrics_are_those_of_the_artifact_s_logits(tmp_path, trained):
    sweep_of(tmp_path / "toy", trained.artifacts)
    told = reveal_test(tmp_path / "toy", 0, trained.store)
    data, fusion = trained.artifacts["data"].table, trained.artifacts["fusion"].table
    is_test = data["split"].to_numpy() == "test"
    logits = np.array(fusion["logits"].to_pylist())
    labels = json.loads(data.schema.metadata[b"magtkd"])["labels"]
    expected = classification_metrics(
        data["label"].to_numpy()[is_test], logits.argmax(axis=1)[is_test], labels
    )
    assert told["accuracy"] == expected["accuracy"]
    assert told["weighted_f1"] == expected["weighted_f1"]


def test_revealing_is_recorded_once_and_for_one_trial(tmp_path, trained):
    sweep_of(tmp_path / "toy", trained.artifacts)
    first = reveal_test(tmp_path / "toy", 0, trained.store)
    size = (tmp_path / "toy/ledger.jsonl").stat().st_size
    assert reveal_test(tmp_path / "toy", 0, trained.store) == first
    assert (tmp_path / "toy/ledger.jsonl").stat().st_size == size
    trials = read_sweep(tmp_path / "toy").trials
    assert (trials[0].test, trials[1].test) == (first, None)


def test_a_running_sweep_reveals_nothing(tmp_path, trained):
    sweep_of(tmp_path / "toy", trained.artifacts)
    with open_ledger(tmp_path / "toy", resume=True), pytest.raises(SweepError, match="running"):
        reveal_test(tmp_path / "toy", 0, trained.store)
    assert read_sweep(tmp_path / "toy").trials[0].test is None


def test_an_artifact_that_is_gone_reveals_nothing(tmp_path, trained):
    sweep_of(tmp_path / "toy", trained.artifacts)
    with pytest.raises(ArtifactError, match="no such artifact"):
        reveal_test(tmp_path / "toy", 0, Store(tmp_path / "empty"))
    assert read_sweep(tmp_path / "toy").trials[0].test is None
