"""`magtkd sweep`: run, resume or preview a sweep."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from magtkd.cli import EXIT_CODES, Overrides, StorageOption, complain, examples
from magtkd.config import dump_yaml
from magtkd.errors import ResumableError, StorageLostError, SweepError, shorten
from tune.cli.options import (
    AddressOption,
    MigrateOption,
    NoTrackingOption,
    ShipCodeOption,
    SweepArgument,
    WaitNodesOption,
    WaitSecondsOption,
    check_alone,
    command_of,
)
from tune.config import SweepConfig, SweepOptions, load_sweep
from tune.ledger import SweepEnd, SweepLayout, SweepState, TrialStatus
from tune.results import (
    DeviceCost,
    StageCost,
    best,
    device_cost,
    sweep_cost,
    write_trials,
)

__all__ = ["add_sweep"]


def add_sweep(app: typer.Typer) -> None:
    """Add `sweep` to a command line."""
    shown = examples(
        "magtkd sweep experiments/quickstart_sweep.yaml",
        "magtkd sweep experiments/mosi_sweep.yaml data.path=mosi.parquet search.num_trials=20",
        "magtkd sweep experiments/mosi_sweep.yaml data.path=mosi.parquet --dry-run",
        "magtkd sweep --resume mosi",
        "magtkd sweep --resume mosi search.num_trials=100 search.budget.hours=2",
        "magtkd sweep experiments/mosi_sweep.yaml --address auto --storage /shared/magtkd",
    )
    app.command("sweep", epilog=f"{shown}\n\n{EXIT_CODES}")(sweep)


def sweep(
    file: SweepArgument = None,
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Resume a sweep; with key=value, give it more."),
    ] = None,
    resume_or_start: Annotated[
        bool,
        typer.Option(
            "--resume-or-start",
            help="Resume the file's sweep where it was begun: for jobs that are repeated.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show what would run, and stop.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="With --dry-run: the whole configuration, too."),
    ] = False,
    address: AddressOption = None,
    wait_nodes: WaitNodesOption = 1,
    wait_seconds: WaitSecondsOption = 600.0,
    ship_code: ShipCodeOption = False,
    no_reuse: Annotated[
        bool,
        typer.Option("--no-reuse", help="Train every stage of every trial, to measure reuse."),
    ] = False,
    no_tracking: NoTrackingOption = False,
    migrate_tracking: MigrateOption = False,
) -> None:
    """Search the space of a sweep file."""
    file, changes = _given(file, list(overrides or ()), resume)
    options = SweepOptions(
        storage=storage,
        reuse=not no_reuse,
        tracking_uri="" if no_tracking else None,
        migrate_tracking=migrate_tracking,
        address=address,
        wait_nodes=wait_nodes,
        wait_seconds=wait_seconds,
        ship_code=ship_code,
    )
    loaded = None if file is None else load_sweep(file, changes)
    if loaded is None and resume_or_start:
        raise SweepError("--resume-or-start: give a sweep file; --resume NAME resumes one")
    # Ray and Optuna take seconds to load, which no other command should wait for.
    from tune.driver import is_to_resume, preview_lines, preview_sweep, resume_sweep, run_sweep

    if dry_run and loaded is None:
        raise SweepError("--dry-run: shows what a sweep file would run; give one")
    if dry_run and loaded is not None:
        if resume_or_start:
            is_to_resume(loaded, options)
        lines = preview_lines(loaded, preview_sweep(loaded, options), whole=verbose)
        _print_preview(loaded, lines, verbose=verbose)
        return
    check_alone(os.environ)
    name = resume or (loaded.name if loaded else "")

    def on_lost(error: ResumableError) -> int:
        return complain(_with_resume(error, name, options), error.exit_code)

    try:
        if loaded is None:
            state = resume_sweep(name, options, on_lost=on_lost, overrides=changes)
        elif resume_or_start and is_to_resume(loaded, options):
            state = resume_sweep(name, options, on_lost=on_lost)
        else:
            state = run_sweep(loaded, options, on_lost=on_lost)
    except ResumableError as error:
        raise typer.Exit(on_lost(error)) from None
    _print_end(state, options, tracked=state.is_tracked and not no_tracking)
    if state.closed == SweepEnd.INTERRUPTED:
        raise typer.Exit(130)
    if not _has_completed(state):
        raise typer.Exit(1)


def _given(
    file: Path | None, overrides: list[str], resume: str | None
) -> tuple[Path | None, list[str]]:
    """The file and the overrides: beside `--resume NAME`, the first override stands in the place
    of a file."""
    if resume is None:
        if file is None:
            raise SweepError("give either a sweep file, or --resume NAME to resume a sweep")
        return file, overrides
    if file is None:
        return None, overrides
    if "=" in str(file) and not file.exists():
        return None, [str(file), *overrides]
    raise SweepError(
        f"{shorten(str(file))}: --resume {shorten(resume)} needs no file, since the ledger has the "
        "sweep; leave it out, or give the file with --resume-or-start"
    )


def _with_resume(error: ResumableError, name: str, options: SweepOptions) -> str:
    """An error's line, and how to resume, where there is something to resume."""
    layout = SweepLayout.of(options.storage, name)
    is_away = not layout.remote and isinstance(error, StorageLostError)
    is_begun = is_away or layout.ledger.is_file()
    return f"{error}{f'; to resume: {_resume_command(name, options)}' if is_begun else ''}"


def _resume_command(name: str, options: SweepOptions) -> str:
    return command_of(options, "sweep", "--resume", name)


def _has_completed(state: SweepState) -> bool:
    return any(trial.state == TrialStatus.COMPLETED for trial in state.trials.values())


def _print_preview(sweep: SweepConfig, lines: Sequence[str], *, verbose: bool) -> None:
    """With the whole configuration, the lines are comments in it."""
    if verbose:
        print(dump_yaml(sweep))
    for line in lines:
        print(f"# {line}" if verbose else line)


def _print_end(state: SweepState, options: SweepOptions, *, tracked: bool) -> None:
    storage = options.storage
    console = Console()
    has_completed = _has_completed(state)
    if has_completed:
        write_trials(best(state, 5), "table", sys.stdout)
    costs = sweep_cost(state)
    if costs:
        console.print(_cost_table(costs))
    if lines := _device_lines(device_cost(state)):
        console.print(f"device-hours: {lines}", highlight=False, soft_wrap=True)
    if state.why_closed is not None:
        setting, _, _ = state.why_closed.partition(":")
        num_unfinished = state.count()[TrialStatus.RUNNING]
        are = "trial is" if num_unfinished == 1 else "trials are"
        unfinished = f"; {num_unfinished} {are} unfinished" if num_unfinished else ""
        console.print(f"ended by {state.why_closed}{unfinished}", style="bold", soft_wrap=True)
        command = _resume_command(state.name, options)
        console.print(f"to give it more: {command} {setting}=NUMBER", soft_wrap=True)
    if state.closed == SweepEnd.INTERRUPTED:
        command = _resume_command(state.name, options)
        console.print(f"interrupted; to resume: {command}", style="bold", soft_wrap=True)
    if tracked:
        from tune.tracking import dashboard_lines

        uri = SweepLayout.of(storage, state.name).tracking_uri
        for line in dashboard_lines(uri, state.sweep_id):
            print(line)
    if has_completed:
        print(f"next: {shlex.join(['magtkd', 'best', state.name, '--storage', storage])}")


def _device_lines(costs: Mapping[str, DeviceCost]) -> str:
    return "; ".join(
        f"{device} {cost.hours_trained:.3g} spent, {cost.hours_saved:.3g} saved by reuse"
        for device, cost in sorted(costs.items())
    )


def _cost_table(costs: Mapping[str, StageCost]) -> Table:
    table = Table("stage", "trained", "stopped", "reused", "seconds", "seconds saved by reuse")
    for stage, cost in costs.items():
        table.add_row(
            stage,
            str(cost.num_trained),
            str(cost.num_stopped),
            str(cost.num_reused),
            f"{cost.seconds_trained:.1f}",
            f"{cost.seconds_saved:.1f}",
        )
    return table
