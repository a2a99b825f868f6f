"""A sweep whose driver runs here; its workers are Slurm jobs that come and go with the demand.

A Ray head without CPUs for stages is started here for as long as the sweep runs; its autoscaler
submits and cancels the jobs (`tune/slurm/provider.py`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from magtkd.errors import MagtkdError, RayLostError, SweepError, shorten
from tune.cluster import AUTOSCALING_CONFIG
from tune.slurm.commands import cancel, queued, submit
from tune.slurm.head import head_place
from tune.slurm.provider import HEAD, HEAD_ID, WORKER
from tune.slurm.request import JobRequest, Sweep
from tune.slurm.script import JOB_ID_RESOURCE, worker_script

__all__ = ["autoscaling_config", "run_with_worker_jobs"]

START_SECONDS = 60.0
END_SECONDS = 20.0
SHARE_OF_MEMORY = 0.7
"""What Ray leaves to workers; the rest is its object store's."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # The second version of the autoscaler loses nodes of a provider of one's own.
    "RAY_enable_autoscaler_v2": "0",
    # A job runs for a while before Ray has been loaded there.
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "300",
}
# Ray ends with the process that holds the other end of its stdin, however that ends; so does its
# folder. If that process was killed, and wrote no line before its end, so do the jobs.
_UNTIL_STDIN_ENDS = """
exec 3<&0
temp=$1 python=$2 name=$3 comment=$4
"${@:5}" </dev/null &
ray=$!
read -r <&3
killed=$?
kill "$ray"
wait "$ray"
rm -rf "$temp"
[ "$killed" -eq 0 ] || exec "$python" -P -m tune.slurm.orphans "$name" "$comment"
"""


def run_with_worker_jobs(
    sweep: Sweep,
    request: JobRequest,
    max_jobs: int,
    *,
    idle_minutes: float,
    host: str | None,
    note: Callable[[str], None],
) -> int:
    """Run a sweep from here to its end, or until a signal.

    Args:
        sweep: the sweep.
        request: what each worker's job asks for.
        max_jobs: how many there may be at a time.
        idle_minutes: after how long without work one is cancelled.
        host: this machine's address as the jobs reach it; None for the one that Ray finds.
        note: called with one line on what happens.

    Returns:
        the exit code of `magtkd sweep`.

    Raises:
        SweepError: Slurm would refuse the jobs.
        ResumableError: Slurm does not answer, or Ray does not start.
    """
    address, port, options = head_place(os.getpid())
    if host is not None:
        try:
            address = socket.gethostbyname(host)
        except OSError as error:
            raise SweepError(
                f"--host {shorten(host)!r}: has no IPv4 address here: {error.strerror}; give "
                "the name or address by which the jobs reach this machine"
            ) from None
    folder = sweep.logs / f"workers-{os.getpid()}"
    sweep.write()
    folder.mkdir(exist_ok=True)
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    name, comment = f"magtkd-{sweep.name}-worker", f"{address}:{port}"
    script = worker_script(
        name, comment, request, logs=str(folder), token=str(token), address=comment
    )
    try:
        submit(script, test_only=True)
    except MagtkdError:
        shutil.rmtree(folder)
        raise
    (folder / "worker.sbatch").write_text(script, encoding="utf-8")
    config = folder / "autoscaling.yaml"
    tree = autoscaling_config(request, max_jobs, idle_minutes, folder, name, comment)
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    environment = _ENVIRONMENT | {
        "RAY_AUTH_TOKEN_PATH": str(token),
        AUTOSCALING_CONFIG: str(config),
    }
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN"}
    } | environment
    temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of sockets must be short
    with contextlib.ExitStack() as stack:
        stack.callback(token.unlink)
        stack.callback(_cancel_all, name, comment, note)
        command = [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--head"),
            f"--node-ip-address={address}",
            f"--port={port}",
            "--num-cpus=0",
            "--num-gpus=0",
            f'--resources={{"{JOB_ID_RESOURCE}": {HEAD_ID}}}',
            f"--autoscaling-config={config}",
            f"--temp-dir={temp}",
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
            "--include-dashboard=false",
            *options,
        ]
        log = folder / "ray-head.log"
        watch = [temp, sys.executable, name, comment]
        stack.enter_context(_head([*watch, *command], environment, log, (address, port)))
        stack.enter_context(_passed_on(folder / "problems", note))
        note(f"workers: at most {max_jobs} jobs {name}; their logs: {folder}")
        return _drive(sweep, comment, environment)


def autoscaling_config(
    request: JobRequest,
    max_jobs: int,
    idle_minutes: float,
    folder: Path,
    job_name: str,
    comment: str,
) -> dict[str, Any]:
    """What Ray's autoscaler is given: a head, and one type of node, which the provider adds."""
    resources: dict[str, float] = {
        "CPU": request.cpus_per_node or 1,
        "GPU": request.num_gpus or 0,
        **request.gpu_resources,
    }
    if request.memory_bytes:
        resources["memory"] = int(SHARE_OF_MEMORY * request.memory_bytes)
    empty_trees = ("auth", "docker", "file_mounts")
    empty_lists = (
        *("initialization_commands", "setup_commands", "head_setup_commands"),
        *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
        *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
    )
    return {
        "cluster_name": job_name,
        "max_workers": max_jobs,
        "upscaling_speed": 100.0,  # all that are wanted at a time: they wait in Slurm's queue
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": "tune.slurm.provider.SlurmProvider",
            "script": str(folder / "worker.sbatch"),
            "problems": str(folder / "problems"),
            "job_name": job_name,
            "comment": comment,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
        },
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            WORKER: {
                "resources": resources,
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_jobs,
            },
        },
        "head_node_type": HEAD,
        "file_mounts_sync_continuously": False,
        **{key: {} for key in empty_trees},
        **{key: [] for key in empty_lists},
    }


@contextlib.contextmanager
def _head(
    command: list[str], environment: dict[str, str], log: Path, place: tuple[str, int]
) -> Iterator[None]:
    """Ray's head, for as long as the block lasts, or this process lives: by `_UNTIL_STDIN_ENDS`.

    Raises:
        RayLostError: it does not start.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", _UNTIL_STDIN_ENDS, "ray", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the driver
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(place):
            if process.poll() is not None or time.monotonic() > end:
                raise RayLostError(f"Ray: did not start here: see {log}", "try again")
            time.sleep(0.2)
        yield
    finally:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"end\n")
                process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=1).close()
    except OSError:
        return False
    return True


def _drive(sweep: Sweep, address: str, environment: dict[str, str]) -> int:
    """The driver, in a process of its own: one that loses Ray ends without a clean-up."""
    command = [sys.executable, "-P", "-m", "tune.cli", "sweep", *sweep.arguments()]
    driver = subprocess.Popen(
        [*command, f"--address={address}"], env=environment, start_new_session=True
    )

    def pass_on(number: int, *frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            driver.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        code = driver.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel_all(name: str, comment: str, note: Callable[[str], None]) -> None:
    """End the jobs, once there is nothing that submits new ones."""
    try:
        cancel([job.id for job in queued(name, comment)])
    except MagtkdError as error:
        note(f"{error}; jobs {name} may be left: scancel --name={name}")


@contextlib.contextmanager
def _passed_on(file: Path, note: Callable[[str], None]) -> Iterator[None]:
    """What the provider writes to a file is shown, each line once."""
    closing, shown = threading.Event(), set[str]()

    def watch() -> None:
        while not closing.wait(2.0):
            with contextlib.suppress(OSError):
                for line in file.read_text(encoding="utf-8").splitlines():
                    if line not in shown:
                        shown.add(line)
                        note(f"workers: {line}")

    thread = threading.Thread(target=watch, name="problems", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()
