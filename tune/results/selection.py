"""What is done with a selected trial: export its configuration, unseal its test metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magtkd.config import Config, dump_yaml, validate
from magtkd.data import list_matrix, read_metadata
from magtkd.errors import SweepError
from magtkd.metrics import classification_metrics, split_scores
from magtkd.store.store import Store
from tune.config.sweep import SweepConfig, config_of
from tune.ledger.file import open_ledger, read_sweep
from tune.ledger.state import SweepState

__all__ = ["exported_config", "reveal_test", "trial_config"]


def trial_config(state: SweepState, number: int) -> Config:
    """The configuration of a trial; what population based training changed on the way is in
    `fusion.changes`."""
    sweep = validate(SweepConfig, state.config, f"sweep {state.name!r}")
    trial = state.trials[number]
    return config_of(sweep, trial.base or trial.values, trial.lineage)


def exported_config(state: SweepState, number: int) -> str:
    """A trial's configuration as YAML for `magtkd train`, led by where it came from."""
    trial = state.trials[number]
    dev = trial.dev or {}
    lines = [
        f"# Trial {number} of sweep {state.name}, {trial.state} after epoch {trial.epoch}:",
        f"# dev accuracy {dev.get('accuracy')}, dev weighted F1 {dev.get('weighted_f1')}",
        f"# with {', '.join(f'{name} {version}' for name, version in state.versions.items())}.",
    ]
    return "\n".join(lines) + "\n" + dump_yaml(trial_config(state, number))


def reveal_test(folder: Path, number: int, store: Store) -> dict[str, Any]:
    """Compute the test metrics of one trial from its artifact, and write in the ledger that they
    were seen. A trial whose test was revealed before gives the same again.

    Args:
        folder: the sweep's folder.
        number: the selected trial.
        store: where its artifacts are.

    Raises:
        SweepError: the sweep is running, or the table has no test split.
        ArtifactError: the trial's artifact is missing or damaged.
    """
    state = read_sweep(folder)
    trial = state.trials[number]
    if trial.test is not None:
        return trial.test
    data = store.read("data", trial.stages["data"].key).table
    fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
    is_test = data["split"].to_numpy() == "test"
    if not is_test.any():
        raise SweepError(f"sweep {state.name!r}: its table has no test split to reveal")
    prediction = list_matrix(fusion, "logits").argmax(axis=1)
    metrics = classification_metrics(
        data["label"].to_numpy()[is_test], prediction[is_test], read_metadata(data).labels
    )
    test = split_scores(metrics)
    with open_ledger(folder, resume=True) as ledger:
        ledger.append("test_revealed", trial=number, test=test)
    return test
