"""The whole command line: the core trainer's commands, and `sweep`, `trials`, `best`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from magtkd.cli.train import JsonOption, Overrides, StorageOption, app, run_app, write_text
from magtkd.config import dump_yaml, validate
from magtkd.errors import StorageError, SweepError
from magtkd.store.store import Store
from tune.config.sweep import SweepConfig, load_sweep
from tune.ledger.file import read_sweep
from tune.ledger.layout import sweep_folder
from tune.ledger.state import SweepState
from tune.results.rows import FORMATS, best, sweep_cost, trial_rows, write_trials
from tune.results.selection import exported_config, reveal_test
from tune.results.status import mlflow_status, sweep_status
from tune.results.status_text import print_status
from tune.tracking.addresses import default_tracking_uri, redact

__all__ = ["app", "main"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]


def main() -> None:
    """The console script."""
    sys.exit(run_app(app))


# --- sweep ------------------------------------------------------------------------------------


@app.command()
def sweep(
    file: Annotated[
        Path | None, typer.Argument(metavar="[SWEEP]", help="A YAML file with a `space`.")
    ] = None,
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a sweep from its ledger.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show what would run, and stop.")
    ] = False,
    no_reuse: Annotated[
        bool, typer.Option("--no-reuse", help="Train every stage of every trial (to measure).")
    ] = False,
    no_tracking: Annotated[
        bool, typer.Option("--no-tracking", help="Do not record in MLflow.")
    ] = False,
) -> None:
    """Search the space of a sweep file.

    [dim]magtkd sweep experiments/mosi_sweep.yaml data.path=mosi.parquet search.num_trials=20[/dim]
    [dim]magtkd sweep --resume mosi[/dim]
    """
    # Ray, Optuna and torch take seconds to load, which no other command should wait for.
    from tune.driver.sweep import SweepOptions, preview_sweep, resume_sweep, run_sweep

    if (file is None) == (resume is None):
        raise SweepError("give either a sweep file, or --resume NAME to go on with a sweep")
    options = SweepOptions(
        storage=storage, reuse=not no_reuse, tracking_uri="" if no_tracking else None
    )
    if resume is not None:
        state = resume_sweep(resume, options)
    else:
        assert file is not None
        loaded = load_sweep(file, overrides or ())
        if dry_run:
            _print_preview(loaded, preview_sweep(loaded, options))
            return
        state = run_sweep(loaded, options)
    _print_end(state, options.storage, tracked=state.is_tracked and not no_tracking)
    if state.closed == "interrupted":
        raise typer.Exit(130)


def _print_preview(sweep: SweepConfig, preview: Any) -> None:
    print(dump_yaml(sweep))
    number = preview.num_configurations
    print(f"# distinct configurations: {'not finite' if number is None else number}")
    for name in preview.idle:
        print(f"# {name}: changes no stage of this table's; leave it out")
    least = "" if preview.is_whole else "at least "
    for stage, (distinct, existing) in preview.stages.items():
        if distinct is None:
            print(f"# {stage}: distinct: not finite")
        else:
            print(f"# {stage}: {least}{distinct} distinct, {least}{existing} exist already")


def _print_end(state: SweepState, storage: str, *, tracked: bool) -> None:
    console = Console()
    if any(trial.state == "completed" for trial in state.trials.values()):
        write_trials(best(state, 5), "table", sys.stdout)
    console.print(_cost_table(state))
    if state.closed == "interrupted":
        command = f"magtkd sweep --resume {state.name} --storage {storage}"
        console.print(f"interrupted; go on with: {command}", style="bold", soft_wrap=True)
    if tracked:
        uri = redact(default_tracking_uri(sweep_folder(storage, state.name).parents[1]))
        is_server = uri.startswith(("http://", "https://"))
        command = uri if is_server else f"mlflow ui --host 127.0.0.1 --backend-store-uri {uri}"
        print(f"MLflow: {command}   (choose Model training there)")
    print(f"next: magtkd best {state.name} --storage {storage}")


def _cost_table(state: SweepState) -> Table:
    table = Table("stage", "trained", "stopped", "reused", "seconds", "seconds saved by reuse")
    for stage, cost in sweep_cost(state).items():
        table.add_row(
            stage,
            str(cost.num_trained),
            str(cost.num_stopped),
            str(cost.num_reused),
            f"{cost.seconds_trained:.1f}",
            f"{cost.seconds_saved:.1f}",
        )
    return table


# --- looking at a sweep -----------------------------------------------------------------------


@app.command()
def trials(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    format: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help="How to write them.")
    ] = "table",
) -> None:
    """List a sweep's trials, running or ended."""
    if format not in FORMATS:
        raise SweepError(f"--format {format!r}: use one of {', '.join(FORMATS)}")
    rows = trial_rows(read_sweep(sweep_folder(storage, name)))
    write_trials(rows, format, sys.stdout)


@app.command("best")
def show_best(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="K", help="Show the K best.")
    ] = None,
    as_json: JsonOption = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the best one's configuration, for `train`."),
    ] = None,
    reveal: Annotated[
        bool,
        typer.Option("--reveal-test", help="Unseal test for the best one; the ledger notes it."),
    ] = False,
) -> None:
    """Show the trials that dev chooses.

    Several objectives give their Pareto front. JSON is one object, or a list where --top or
    several objectives ask for more than one.
    """
    folder = sweep_folder(storage, name)
    state = read_sweep(folder)
    rows = best(state, top)
    if reveal:
        reveal_test(folder, rows[0]["trial"], Store(storage))
        if state.is_tracked:
            _send_to_mlflow(folder)
        state = read_sweep(folder)
        rows = best(state, top)
    if export is not None:
        write_text(export, exported_config(state, rows[0]["trial"]))
        print(f"{export}: run it with: magtkd train {export}", file=sys.stderr)
    if as_json:
        one = top is None and len(state.objectives) == 1
        print(json.dumps(rows[0] if one else rows, indent=2))
    else:
        write_trials(rows, "table", sys.stdout)


@app.command()
def status(
    name: NameArgument, storage: StorageOption = "magtkd-results", as_json: JsonOption = False
) -> None:
    """Show what a sweep is doing: what runs, what waits, what failed, what MLflow lacks."""
    folder = sweep_folder(storage, name)
    told = sweep_status(folder, storage)
    uri = default_tracking_uri(folder.parents[1])
    told["mlflow"] = mlflow_status(folder, uri, is_tracked=told["is_tracked"])
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print_status(told, Console())


@app.command("sync")
def sync_sweep(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's address; default as for `sweep`.")
    ] = None,
) -> None:
    """Send to MLflow whatever it lacks of a sweep."""
    from tune.results.trial_files import files_of
    from tune.tracking.tracker import sync

    folder = sweep_folder(storage, name)
    state = read_sweep(folder)
    config = validate(SweepConfig, state.config, f"sweep {name!r}")
    uri = tracking_uri or default_tracking_uri(folder.parents[1])

    def say(message: str) -> None:
        print(f"magtkd: {message}", file=sys.stderr)

    num_sent = sync(
        folder / "ledger.jsonl", uri, artifacts_of=files_of(config, Store(storage)), say=say
    )
    print(f"MLflow: {redact(uri)}: sent {num_sent} events" if num_sent else "MLflow: up to date")


# --- looking at this machine ------------------------------------------------------------------


@app.command()
def doctor(storage: StorageOption = "magtkd-results", as_json: JsonOption = False) -> None:
    """Check versions, devices, storage, MLflow, Ray and the environment. Exit code 1 tells of a
    problem."""
    from tune.doctor.checks import run_checks

    console, checks = Console(), []
    for check in run_checks(storage):
        checks.append(check)
        if not as_json:
            line = f"{check.outcome:8} {check.name:16} {check.message}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    if any(check.outcome == "problem" for check in checks):
        raise typer.Exit(1)


def _send_to_mlflow(folder: Path) -> None:
    from tune.tracking.tracker import sync

    try:
        sync(folder / "ledger.jsonl", default_tracking_uri(folder.parents[1]))
    except StorageError as error:
        print(f"magtkd: MLflow was not told: {error}", file=sys.stderr)
