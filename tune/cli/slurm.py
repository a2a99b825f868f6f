"""`magtkd slurm`: a sweep as a Slurm job, or with workers that are Slurm jobs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from magtkd.cli import Overrides, StorageOption, examples
from magtkd.config import dump_yaml
from magtkd.errors import SweepError
from tune.cli.options import NoTrackingOption, SweepArgument
from tune.config import check_new_sweep, load_sweep
from tune.ledger import SweepLayout, find_opened
from tune.slurm import JobRequest, Sweep, jobs_of, stop_jobs, submit, sweep_script

__all__ = ["add_slurm"]


def add_slurm(app: typer.Typer) -> None:
    """Add `slurm` to a command line."""
    shown = examples(
        "magtkd slurm mosi_sweep.yaml --nodes 4 --gpus-per-node 2 --time 08:00:00",
        "magtkd slurm mosi_sweep.yaml --worker-jobs 8 --gpus-per-node 1 --time 08:00:00",
        "magtkd slurm --stop mosi",
    )
    app.command("slurm", epilog=shown)(slurm)


def slurm(
    file: SweepArgument = None,
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="Nodes of the job.")] = 1,
    gpus_per_node: Annotated[
        str | None, typer.Option("--gpus-per-node", metavar="[TYPE:]G", help="GPUs of each node.")
    ] = None,
    cpus_per_node: Annotated[
        int | None,
        typer.Option("--cpus-per-node", metavar="C", help="CPUs of each node; Slurm's default: 1."),
    ] = None,
    mem: Annotated[
        str | None, typer.Option("--mem", metavar="SIZE", help="Memory of each node, as 64G.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="Time limit of each attempt, as 08:00:00."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            "--sbatch", metavar="OPTION", help='Another option, as "--qos=high"; repeatable.'
        ),
    ] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the batch script instead of submitting it.")
    ] = False,
    stop: Annotated[
        str | None,
        typer.Option("--stop", metavar="NAME", help="Save what a sweep's job runs, and end it."),
    ] = None,
    worker_jobs: Annotated[
        int | None,
        typer.Option(
            "--worker-jobs",
            min=1,
            metavar="N",
            help="Run the driver here, and up to N workers as jobs of their own.",
        ),
    ] = None,
    idle_minutes: Annotated[
        float,
        typer.Option(min=0.05, metavar="M", help="Cancel a worker's job after so long idle."),
    ] = 5.0,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="This machine's address for --worker-jobs."),
    ] = None,
    no_tracking: NoTrackingOption = False,
) -> None:
    """Run a sweep under Slurm until it is finished, over as many time limits as that takes.

    It is submitted as one job, which saves what runs before its time is over, and is requeued.
    """
    if (file is None) == (stop is None):
        raise SweepError("give either a sweep file, or --stop NAME to end its job")
    if file is None:
        _stop(stop or "", storage)
        return
    if worker_jobs is not None and nodes != 1:
        raise SweepError("--nodes: a worker's job has one node; --worker-jobs says how many")
    request = JobRequest(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        mem=mem,
        time=time,
        partition=partition,
        account=account,
        options=sbatch or (),
    )
    loaded = load_sweep(file, overrides or ())
    try:
        check_new_sweep(loaded)
    except SweepError:
        if find_opened(SweepLayout.of(storage, loaded.name)) is None:
            raise  # else an earlier version has begun it, and the job resumes it
    sweep = Sweep(
        name=loaded.name,
        text=dump_yaml(loaded),
        storage=storage,
        has_tracking=not no_tracking,
    )
    if worker_jobs is None:
        _submit(sweep, request, only_print=only_print)
        return
    if only_print:
        raise SweepError("--print: there is no script of a sweep with --worker-jobs; leave it out")
    from tune.slurm.worker_jobs import run_with_worker_jobs

    code = run_with_worker_jobs(
        sweep, request, worker_jobs, idle_minutes=idle_minutes, host=host, note=_note
    )
    raise typer.Exit(code)


def _submit(sweep: Sweep, request: JobRequest, *, only_print: bool) -> None:
    script = sweep_script(sweep, request)
    if only_print:
        print(script, end="")
        return
    if running := jobs_of(sweep.name, sweep.layout.place):
        raise SweepError(
            f"sweep {sweep.name!r}: job {running[0].id} runs it already; wait for it, or end it: "
            f"magtkd slurm --stop {sweep.name}"
        )
    sweep.make_folder()
    job = submit(script)
    print(f"job {job}: {sweep.logs}/{job}.log")


def _stop(name: str, storage: str) -> None:
    place = SweepLayout.of(storage, name).place
    lines = stop_jobs(name, place)
    if not lines:
        raise SweepError(f"sweep {name!r}: no job of yours runs it with its results in {place}")
    for line in lines:
        print(line)


def _note(line: str) -> None:
    print(f"magtkd: {line}", file=sys.stderr)
