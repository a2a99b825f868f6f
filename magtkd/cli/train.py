"""`magtkd train`: one configuration in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from magtkd.cli.app import complain, examples, warn
from magtkd.cli.options import JsonOption, Overrides, StorageOption
from magtkd.config import Config, dump_yaml, load_config
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord, run_chain
from magtkd.store import Artifact, Store

__all__ = ["add_train"]


def add_train(app: typer.Typer) -> None:
    """Add `train` to a command line."""
    shown = examples("magtkd train experiments/quickstart.yaml fusion.depth=2 seed=1")
    app.command("train", epilog=shown)(train)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).")],
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    as_json: JsonOption = False,
) -> None:
    """Train one configuration in this process, reusing artifacts."""
    resolved = load_config(config, overrides or ())
    store = Store(storage)
    store.check_writable()
    records: dict[str, StageRecord] = {}
    with _progress(resolved) as (report, on_stage):

        def note(stage: str, record: StageRecord) -> None:
            records[stage] = record
            on_stage(stage)

        artifacts = run_chain(resolved, store, report=report, on_stage=note, warn=warn)
    result = _result(resolved, artifacts, records)
    _write_run(store, resolved, result)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        Console().print(_result_table(artifacts, records))


class _progress:  # noqa: N801 (used as a function)
    """A bar per stage on stderr, where that is a terminal: `report` and `on_stage` callbacks for
    `run_chain`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:8}"),
            *Progress.get_default_columns()[1:3],
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[score]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> tuple[Callable[..., None], Callable[[str], None]]:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self._report, self._finish

    def __exit__(self, error: type[BaseException] | None, *details: object) -> None:
        if self._progress.console.is_terminal:
            self._progress.live.transient = error is not None  # the error's line is enough
            self._progress.stop()
        if error is KeyboardInterrupt:
            complain("interrupted; the same command continues from the last checkpoint", 130)

    def _task(self, stage: str) -> Any:
        if stage not in self._tasks:
            total = getattr(getattr(self._config, stage), "epochs", 1)
            self._tasks[stage] = self._progress.add_task(stage, total=total, score="")
        return self._tasks[stage]

    def _report(self, stage: str, report: Any) -> None:
        score = f"dev weighted F1 {100 * report.metrics['dev/weighted_f1']:.2f}"
        self._progress.update(self._task(stage), completed=report.epoch, score=score)

    def _finish(self, stage: str) -> None:
        task = self._task(stage)
        total = self._progress.tasks[list(self._tasks).index(stage)].total
        self._progress.update(task, completed=total)


def _result(
    config: Config, artifacts: dict[str, Artifact], records: dict[str, StageRecord]
) -> dict[str, Any]:
    metrics = artifacts["fusion"].metrics
    chosen = next(r for r in metrics["reports"] if r["epoch"] == metrics["epoch"])
    return {
        "name": config.name,
        "dev": Scores.of_dev(chosen["metrics"]).to_json(),
        "epoch": metrics["epoch"],
        "artifact": f"artifacts/fusion/{records['fusion'].key}",
        "stages": {stage: record.key for stage, record in records.items()},
        "outcomes": {stage: record.outcome for stage, record in records.items()},
    }


def _write_run(store: Store, config: Config, result: dict[str, Any]) -> None:
    """The resolved configuration and the result, beside each other under `runs/`."""
    folder = f"runs/{config.name}-{result['stages']['fusion'][:12]}"
    store.write_file(f"{folder}/config.yaml", dump_yaml(config).encode())
    store.write_file(f"{folder}/result.json", json.dumps(result, indent=2).encode())


def _result_table(artifacts: dict[str, Artifact], records: dict[str, StageRecord]) -> Table:
    table = Table("stage", "", "seconds", "epoch", "dev accuracy", "dev weighted F1")
    for stage, record in records.items():
        metrics = artifacts[stage].metrics
        scores = metrics.get("dev")
        table.add_row(
            stage,
            record.outcome,
            f"{record.seconds:.1f}",
            str(metrics.get("epoch", "")),
            f"{100 * scores['accuracy']:.2f}" if scores else "",
            f"{100 * scores['weighted_f1']:.2f}" if scores else "",
        )
    return table
