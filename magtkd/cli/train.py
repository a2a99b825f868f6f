"""The core trainer's part of the command line: `train`, `import`, `data`, `config`.

The functions here only read arguments and print; what they call can be called from a notebook.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from magtkd.cli.data import data_app
from magtkd.cli.import_weights import import_weights
from magtkd.cli.options import JsonOption, Overrides, StorageOption
from magtkd.config import Config, dump_yaml, load_config
from magtkd.errors import DivergedError, InputError, MagtkdError
from magtkd.metrics import dev_scores
from magtkd.pipeline import StageRecord, run_chain
from magtkd.store.store import Artifact, Store

__all__ = ["JsonOption", "Overrides", "StorageOption", "app", "run_app", "write_text"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train MAGTKD and search its hyperparameters.",
)
config_app = typer.Typer(no_args_is_help=True, help="About the configuration.")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.command("import")(import_weights)


def run_app(application: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a command line; one line on stderr and exit code 2 for what the user got wrong."""
    try:
        code = application(args=arguments, standalone_mode=False)
    except (InputError, DivergedError) as error:
        return _complain(error, 2)
    except MagtkdError as error:
        return _complain(error, 1)
    except Exception as error:
        # Typer's and click's own complaints about arguments, which know how to show themselves.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        # Without a message, the help itself was shown.
        return _complain(f"{message}; see `{_command(error)} --help`", 2) if message else 2
    # Typer returns the exit code of `typer.Exit`, and 130 after Ctrl-C.
    return code if isinstance(code, int) else 0


def _complain(message: object, code: int) -> int:
    print(f"magtkd: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _command(error: Exception) -> str:
    """The command that a complaint about arguments is about, such as `magtkd data convert`."""
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(["magtkd", *names])


def _warn(message: str) -> None:
    print(f"magtkd: warning: {message}", file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """Write a file at once, so that what was there stays whole if writing fails.

    Raises:
        InputError: the file cannot be written.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: cannot write: it is a folder; name a file in it")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write: {error.strerror}; choose another file") from None


# --- train ------------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    as_json: JsonOption = False,
) -> None:
    """Train one configuration in this process, reusing artifacts.

    [dim]magtkd train experiments/quickstart.yaml fusion.depth=2 seed=1[/dim]
    """
    resolved = load_config(config, overrides or ())
    store = Store(storage)
    store.check_writable()
    records: dict[str, StageRecord] = {}
    with _progress(resolved) as (report, on_stage):

        def note(stage: str, record: StageRecord) -> None:
            records[stage] = record
            on_stage(stage)

        artifacts = run_chain(resolved, store, report=report, on_stage=note, say=_warn)
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
            self._progress.live.transient = error is not None  # its one line says it all
            self._progress.stop()
        if error is KeyboardInterrupt:
            _complain("interrupted; the same command goes on from the last export", 130)

    def _task(self, stage: str) -> Any:
        if stage not in self._tasks:
            total = getattr(getattr(self._config, stage), "epochs", 1)
            self._tasks[stage] = self._progress.add_task(stage, total=total, score="")
        return self._tasks[stage]

    def _report(self, stage: str, report: Any) -> None:
        score = f"dev weighted F1 {report.metrics['dev/weighted_f1']:.4f}"
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
        "dev": dev_scores(chosen["metrics"]),
        "epoch": metrics["epoch"],
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
            f"{scores['accuracy']:.4f}" if scores else "",
            f"{scores['weighted_f1']:.4f}" if scores else "",
        )
    return table


# --- config -----------------------------------------------------------------------------------


@config_app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of a configuration."""
    print(json.dumps(Config.model_json_schema(), indent=2))
