"""`magtkd trials`, `best`, `list`, `status`, `sync`: what came out of sweeps, and what they do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from magtkd.cli import JsonOption, StorageOption, examples, write_text
from magtkd.errors import StorageLostError, SweepError, TrackingError
from magtkd.store import Store, patience_of
from tune.cli.options import PATIENCE_SECONDS, MigrateOption, NameArgument
from tune.ledger import SweepLayout, SweepState, find_confirmations, read_sweep
from tune.redact import redact
from tune.results import (
    FORMATS,
    Confirmation,
    TrialRow,
    best,
    best_lines,
    check_export,
    choose,
    confirmed_config,
    exported_config,
    files_of,
    find_confirmation,
    list_sweeps,
    mlflow_status,
    print_status,
    print_sweeps,
    reveal_confirmed,
    reveal_test,
    sweep_status,
    trial_rows,
    write_trials,
)

__all__ = ["add_results"]


def add_results(app: typer.Typer) -> None:
    """Add these commands to a command line."""
    soon = patience_of(PATIENCE_SECONDS)
    shown = examples("magtkd trials mosi", "magtkd trials mosi --format csv > mosi.csv")
    app.command("trials", epilog=shown)(soon(show_trials))
    shown = examples(
        "magtkd best mosi --top 5",
        "magtkd best mosi --export best.yaml",
        "magtkd best mosi --reveal-test",
    )
    app.command("best", epilog=shown)(soon(show_best))
    app.command("list", epilog=examples("magtkd list --storage results"))(soon(show_list))
    app.command("status", epilog=examples("magtkd status mosi"))(soon(show_status))
    shown = examples(
        "magtkd study mosi --out sqlite:///study.db", "optuna-dashboard sqlite:///study.db"
    )
    app.command("study", epilog=shown)(soon(write_optuna))
    shown = examples("magtkd sync mosi --tracking-uri http://mlflow.lab:5000")
    app.command("sync", epilog=shown)(soon(sync_sweep))


def show_trials(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    format: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help="How to write them.")
    ] = "table",
) -> None:
    """List a sweep's trials, running or ended."""
    chosen = next((one for one in FORMATS if one == format), None)
    if chosen is None:
        raise SweepError(f"--format {format!r}: use one of {', '.join(FORMATS)}")
    if chosen == "parquet" and sys.stdout.isatty():
        raise SweepError("--format parquet: not for a terminal; redirect it to a file")
    rows = trial_rows(read_sweep(SweepLayout.of(storage, name)))
    write_trials(rows, chosen, sys.stdout)


def show_best(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="K", help="Show the K best.")
    ] = None,
    as_json: JsonOption = False,
    number: Annotated[
        int | None,
        typer.Option("--trial", min=0, metavar="N", help="The one of them to export or reveal."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the best one's configuration, for `train`."),
    ] = None,
    reveal: Annotated[
        bool,
        typer.Option(
            "--reveal-test", help="Reveal test metrics of the best one; the ledger records it."
        ),
    ] = False,
) -> None:
    """Show the best trials, ranked on dev; where the sweep was confirmed, the confirmed choice.

    Several objectives give their Pareto front, of which --export and --reveal-test take the one
    that --trial names. Of a confirmed choice, --export has all seeds, and --reveal-test reveals
    them together.

    JSON is one object, or a list with --top or several objectives.
    """
    layout = SweepLayout.of(storage, name)
    state = read_sweep(layout)
    if state.table is not None and (reveal or export is not None):
        raise SweepError(
            f"sweep {name!r}: has the trainings of table {state.table!r}, of which none is "
            "selected; magtkd table reveals all rows with all seeds, and its file has what they are"
        )
    rows = best(state, top)
    if number is not None and export is None and not reveal:
        raise SweepError(
            f"--trial {number}: names the trial to export or reveal; add --export FILE, or "
            "--reveal-test; `magtkd trials` shows all trials"
        )
    confirmed = find_confirmation(layout, state)
    chosen = None
    if export is not None or reveal:
        chosen = _choose(confirmed, state, rows, number, reveal=reveal)
    if export is not None:
        check_export(export)
    if reveal and chosen is not None:
        _reveal(layout, confirmed, state, chosen, storage)
        state = read_sweep(layout)
        confirmed, rows = find_confirmation(layout, state), best(state, top)
    if export is not None and chosen is not None:
        _export(export, confirmed, state, chosen)
    if top is None and confirmed is not None:
        rows = [row for row in trial_rows(state) if row.trial == confirmed.chosen]
    if as_json:
        trees = [row.to_json() for row in rows]
        one = top is None and len(state.objectives) == 1
        if one and confirmed is not None:
            trees[0]["confirmed"] = confirmed.to_json()
        print(json.dumps(trees[0] if one else trees, indent=2))
        return
    write_trials(rows, "table", sys.stdout)
    for line in best_lines(confirmed, state) if confirmed is not None else ():
        print(line)


def _choose(
    confirmed: Confirmation | None,
    state: SweepState,
    rows: Sequence[TrialRow],
    number: int | None,
    *,
    reveal: bool,
) -> int:
    """The trial to export or reveal: the confirmed choice where there is one, or one that was asked
    for by its number."""
    if confirmed is not None and number in {None, confirmed.chosen}:
        return confirmed.chosen
    if confirmed is not None and reveal:
        raise SweepError(
            f"--trial {number}: test is revealed of the confirmed choice, which is that of trial "
            f"{confirmed.chosen}"
        )
    chosen = choose(state, rows, number)
    if reveal and len(state.objectives) == 1 and chosen != rows[0].trial:
        raise SweepError(
            f"--trial {chosen}: test is revealed of the best trial, which is {rows[0].trial}"
        )
    return chosen


def _reveal(
    layout: SweepLayout,
    confirmed: Confirmation | None,
    state: SweepState,
    chosen: int,
    storage: str,
) -> None:
    if confirmed is None:
        reveal_test(layout, chosen, Store(storage))
    else:
        reveal_confirmed(confirmed, Store(storage))
    place, recorded = (layout, state) if confirmed is None else (confirmed.layout, confirmed.state)
    if recorded.is_tracked:
        _send_to_mlflow(place)


def _export(path: Path, confirmed: Confirmation | None, state: SweepState, chosen: int) -> None:
    if confirmed is not None and chosen == confirmed.chosen:
        text = confirmed_config(confirmed)
    else:
        text = exported_config(state, chosen)
    write_text(path, text)
    command = shlex.join(["magtkd", "train", str(path)])
    print(f"{path}: run it with: {command}", file=sys.stderr)


def _send_to_mlflow(layout: SweepLayout) -> None:
    from tune.tracking import sync

    try:
        sync(layout, layout.tracking_uri)
    except (StorageLostError, TrackingError) as error:
        print(f"magtkd: not sent to MLflow: {error}", file=sys.stderr)


def show_status(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; without, all of them.")
    ] = None,
    storage: StorageOption = "magtkd-results",
    as_json: JsonOption = False,
) -> None:
    """Show what a sweep is doing: what runs, waits, failed, and what MLflow lacks."""
    if name is None:
        show_list(storage, as_json)
        return
    layout = SweepLayout.of(storage, name)
    status = sweep_status(layout, storage)
    status = replace(status, mlflow=mlflow_status(layout, is_tracked=status.is_tracked))
    if as_json:
        print(json.dumps(status.to_json(), indent=2))
    else:
        print_status(status, Console())


def show_list(storage: StorageOption = "magtkd-results", as_json: JsonOption = False) -> None:
    """List the sweeps of a storage, the latest first."""
    lines = list_sweeps(storage)
    if as_json:
        print(json.dumps([line.to_json() for line in lines], indent=2))
    else:
        print_sweeps(lines, sys.stdout)


def write_optuna(
    name: NameArgument,
    out: Annotated[
        str, typer.Option(metavar="URL", help="A database, such as sqlite:///study.db.")
    ],
    storage: StorageOption = "magtkd-results",
) -> None:
    """Write a sweep's trials as an Optuna study into a database, for optuna-dashboard."""
    from tune.search import write_study

    number = write_study(read_sweep(SweepLayout.of(storage, name)), out)
    print(f"{redact(out)}: study {name!r}, {number} trials")


def sync_sweep(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's address; default as for `sweep`.")
    ] = None,
    migrate_tracking: MigrateOption = False,
) -> None:
    """Send to MLflow whatever it lacks of a sweep."""
    from tune.tracking import check_store, sync

    layout = SweepLayout.of(storage, name)
    state = read_sweep(layout)
    uri = tracking_uri or layout.tracking_uri
    check_store(uri, migrating=migrate_tracking)

    def note(message: str) -> None:
        print(f"magtkd: {message}", file=sys.stderr)

    num_sent = 0
    # The sweep first: the runs of its confirmations are below its own.
    for place in (layout, *find_confirmations(layout, state.sweep_id)):
        files = files_of(read_sweep(place).sweep, Store(storage))
        num_sent += sync(place, uri, artifacts_of=files, note=note)
    print(f"MLflow: {redact(uri)}: sent {num_sent} events" if num_sent else "MLflow: up to date")
