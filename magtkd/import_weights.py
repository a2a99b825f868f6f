"""Published fusion weights as an artifact of a configuration.

ROOT/artifacts/fusion/KEY/     as of a trained stage, at epoch 0
ROOT/runs/NAME-KEY/            config.yaml, result.json, and test.json once test was revealed
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from magtkd.config import Config, dump_yaml
from magtkd.data import read_corpus
from magtkd.metrics import Scores
from magtkd.pipeline import (
    CORE_TRAINER,
    Plan,
    Source,
    describe_stage,
    find_stage,
    inputs_of,
    make_plan,
    run_chain,
    source_of,
)
from magtkd.scoring import score_split
from magtkd.stages.published import evaluate_published, read_published
from magtkd.store import Artifact, Store

__all__ = ["import_checkpoint"]


def import_checkpoint(
    path: Path,
    config: Config,
    store: Store,
    *,
    classes: Sequence[str] | None = None,
    reveal_test: bool = False,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Write a published fusion model's weights as an artifact of this configuration.

    Args:
        path: a torch state dict file, or safetensors.
        config: the corpus, the stages before fusion, and in `fusion` the model and its sizes.
        store: where artifacts are looked for and written.
        classes: the checkpoint's classes in order; None for the corpus's own order.
        reveal_test: compute test metrics too, and record that they were revealed.
        warn: called with one line for each warning.

    Returns:
        `name`, `key`, `weights` (their path), `classes`, `dev`, and where it was revealed `test`.

    Raises:
        InputError: the checkpoint does not fit the configuration, or one of them is wrong.
    """
    store.check_writable()
    section = config.fusion.model_copy(update={"initial": None})
    model = read_published(path, section)
    source = source_of(read_corpus(config.data))
    plan = make_plan(config, source)
    artifacts = run_chain(config, store, with_fusion=False, warn=warn)
    data = artifacts["data"]
    inputs = inputs_of({name: artifacts[name] for name in plan.reads["fusion"]})
    result = evaluate_published(path, model, section, inputs, classes, warn)
    if config.data.speakers != "published":
        warn(
            f"{path}: a row of its speaker embedding is a speaker's number in the file that it was "
            f"trained on; data.speakers is {config.data.speakers}; set data.speakers=published "
            "where the table is made of that file"
        )
    key = _imported_key(config, plan, source, result.weights)
    described = describe_stage("fusion", config, plan) | {"imported": path.name}
    artifact = CORE_TRAINER.artifact_of(result, "fusion", key, data, described)
    store.write(artifact)
    summary = {
        "name": config.name,
        "key": key,
        "weights": f"{store.folder('fusion', key)}/weights.safetensors",
        "classes": list(classes or inputs.labels),
        "dev": Scores.of_split(artifact.metrics["dev"]).to_json(),
    }
    folder = f"runs/{config.name}-{key[:12]}"
    store.write_file(f"{folder}/config.yaml", dump_yaml(config).encode())
    store.write_file(f"{folder}/result.json", json.dumps(summary, indent=2).encode())
    if reveal_test:
        summary["test"] = _reveal(store, folder, data, artifact)
    return summary


def _imported_key(config: Config, plan: Plan, source: Source, weights: bytes) -> str:
    """As of a stage that starts from these weights and trains no epoch."""
    replaced = {"epochs": 0, "initial": hashlib.sha256(weights).hexdigest()}
    return find_stage("fusion").key(config, source, plan.keys_read("fusion"), replaced)


def _reveal(store: Store, folder: str, data: Artifact, artifact: Artifact) -> dict[str, Any]:
    """The test metrics; the time at which they were first revealed is kept."""
    scores = score_split(data.table, artifact.table, "test").to_json()
    noted = {"revealed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "test": scores}
    with contextlib.suppress(OSError, ValueError):
        noted["revealed"] = json.loads(store.read_file(f"{folder}/test.json"))["revealed"]
    store.write_file(f"{folder}/test.json", json.dumps(noted, indent=2).encode())
    return scores
