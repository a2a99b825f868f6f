"""`magtkd import`: published fusion weights as an artifact."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from magtkd.cli.app import examples, warn
from magtkd.cli.options import JsonOption, Overrides, StorageOption
from magtkd.config import load_config
from magtkd.errors import ConfigError
from magtkd.store import Store

__all__ = ["add_import"]

MODELS = ("magt", "sdt")


def add_import(app: typer.Typer) -> None:
    """Add `import` to a command line."""
    shown = examples(
        "magtkd import magt.pt published_meld.yaml --model magt data.path=features.parquet"
    )
    app.command("import", epilog=shown)(import_weights)


def import_weights(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="File of a torch state dict, or safetensors."),
    ],
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="Configuration file (YAML): the corpus, and what is fused."
        ),
    ],
    overrides: Overrides = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="|".join(MODELS), help="Model of the checkpoint; required."
        ),
    ] = "",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="The checkpoint's classes, in order; by default sorted."
        ),
    ] = None,
    storage: StorageOption = "magtkd-results",
    reveal: Annotated[
        bool,
        typer.Option(
            "--reveal-test", help="Reveal test metrics; the storage records that they were."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn published fusion weights into an artifact, and evaluate it on dev.

    The stages that fusion reads are trained or reused first.

    To continue training from the artifact, set fusion.initial.
    """
    if model not in MODELS:
        raise ConfigError(f"--model {model!r}: use one of {', '.join(MODELS)}")
    overrides = [*(overrides or ()), f"fusion.model={model}"]
    resolved = load_config(config, overrides)
    # Torch takes seconds to load, which no other command should wait for.
    from magtkd.import_weights import import_checkpoint

    order = None if labels is None else tuple(name.strip() for name in labels.split(","))
    result = import_checkpoint(
        checkpoint, resolved, Store(storage), classes=order, reveal_test=reveal, warn=warn
    )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        Console().print(_table(result))
        print(f"classes, in the checkpoint's order: {', '.join(result['classes'])}")
        values = [*overrides, f"fusion.initial={result['weights']}"]
        again = shlex.join(["magtkd", "train", str(config), *values, "--storage", storage])
        print(f"to continue training: {again}")


def _table(result: dict[str, Any]) -> Table:
    table = Table("split", "accuracy", "weighted F1")
    for split in ("dev", "test"):
        if split in result:
            scores = result[split]
            shown = (f"{100 * scores[name]:.2f}" for name in ("accuracy", "weighted_f1"))
            table.add_row(split, *shown)
    return table
