"""`magtkd slurm` where it cannot do what it is asked for, and where Ray's head listens."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import yaml

from magtkd.cli import run_app
from tune.cli import app
from tune.config import load_sweep
from tune.slurm import orphans
from tune.slurm.commands import queued, submit
from tune.slurm.head import free_port
from tune.slurm.provider import WORKER, SlurmProvider
from tune.slurm.worker_jobs import _UNTIL_STDIN_ENDS

SWEEP = {
    "name": "toy",
    "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
    "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SWEEP))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["toy.yaml"], "squeue: no such command on PATH; run this where Slurm's commands are"),
        (["--stop", "toy"], "squeue: no such command on PATH"),
        (["toy.yaml", "--worker-jobs", "2"], "sbatch: no such command on PATH"),
        (["none.yaml"], "none.yaml: cannot read the configuration"),
        (["toy.yaml", "search.num_trials=no"], "search.num_trials"),
        (["toy.yaml", "--nodes", "0"], "--nodes 0: a job has at least one node"),
        (["toy.yaml", "--time", "soon"], "--time 'soon': not what Slurm takes"),
        (["toy.yaml", "--worker-jobs", "2", "--nodes", "3"], "--nodes: a worker's job has one"),
        (["toy.yaml", "--worker-jobs", "2", "--print"], "--print: there is no script"),
        ([], "give either a sweep file, or --stop NAME"),
        (["toy.yaml", "--stop", "toy"], "give either a sweep file, or --stop NAME"),
        (["--stop", "../x"], "not a name"),
        (["toy.yaml", "--worker-jobs", "2", "--host", "no.invalid"], "--host 'no.invalid': has no"),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys):
    assert run_app(app, ["slurm", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("magtkd: ")
    assert err.count("\n") == 1
    assert line in err


def test_print_needs_no_slurm(folder, capsys):
    assert run_app(app, ["slurm", "toy.yaml", "--nodes", "2", "--print"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=magtkd-toy\n")
    # It has the sweep as it is now, so that nothing is written, and `status` knows of no job.
    assert [one.name for one in folder.iterdir()] == ["toy.yaml"]
    (folder / "printed.yaml").write_text(script.split("END-OF-SWEEP")[1].lstrip("'\n"))
    assert load_sweep(folder / "printed.yaml") == load_sweep(folder / "toy.yaml")
    assert run_app(app, ["status", "toy"]) == 2
    assert "job" not in capsys.readouterr().err


def test_jobs_of_one_node_begin_at_different_ports():
    assert free_port(1000) != free_port(1002)
    with socket.socket() as taken:
        port = free_port(7)
        taken.bind(("", port))
        taken.listen()
        assert free_port(7) == port + 1


def test_the_place_of_the_head_is_one_line():
    command = [sys.executable, "-P", "-m", "tune.slurm.head", "12345"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    address, port, *options = out.split()
    assert out.count("\n") == 1
    assert socket.inet_aton(address)
    assert 20_000 <= int(port) < 32_000
    assert all(option.startswith("--ray-client-server-port=") for option in options)


def test_what_is_given_overrules_the_environment(folder, monkeypatch):
    """sbatch's variables overrule a script's lines, and squeue's hide jobs."""
    for name, answer in (("sbatch", "echo 7"), ("squeue", "true")):
        stub = folder / name
        stub.write_text(f'#!/bin/bash\necho "$0 $*" >>log; env >>log; {answer}\n')
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    assert submit("#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH '--comment=a b'\ntrue\n") == "7"
    assert queued("magtkd-toy", "x") == []
    log = (folder / "log").read_text()
    assert "sbatch --parsable --partition=gpu --comment=a b\n" in log
    assert "SQUEUE_STATES" not in log


def test_jobs_that_end_at_once_are_not_submitted_without_end(folder, monkeypatch):
    from ray.autoscaler.batching_node_provider import ScaleRequest

    stub = folder / "sbatch"
    stub.write_text("#!/bin/bash\necho x >>submitted; wc -l <submitted\n")
    queue = folder / "squeue"
    queue.write_text("#!/bin/bash\n")  # none is there any more
    for one in (stub, queue):
        one.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (folder / "worker.sbatch").write_text("#!/bin/bash\n")
    names = {"job_name": "magtkd-toy-worker", "comment": "h:1", "problems": "problems"}
    flags = ("disable_node_updaters", "disable_launch_config_check", "foreground_node_launch")
    config = {"script": "worker.sbatch", **names, **dict.fromkeys(flags, True)}
    provider = SlurmProvider(config, "toy")
    for _ in range(5):
        provider.node_data_dict = provider.get_node_data()
        provider.submit_scale_request(ScaleRequest(desired_num_workers={WORKER: 3}))
    assert len((folder / "submitted").read_text().splitlines()) == 3
    assert "left the queue within 10 s: see its log" in (folder / "problems").read_text()


@pytest.mark.parametrize(("line", "is_cancelled"), [(b"end\n", False), (b"", True)])
def test_what_a_killed_driver_leaves_is_cancelled(folder, line, is_cancelled):
    """A driver that is not killed says so before its end, and cancels its jobs by itself."""
    temp = folder / "temp"
    temp.mkdir()
    stub = folder / "python"
    stub.write_text('#!/bin/bash\necho "$*" >called\n')
    stub.chmod(0o755)
    place = [str(temp), str(stub), "magtkd-toy-worker", "h:1"]
    subprocess.run(
        ["/bin/bash", "-c", _UNTIL_STDIN_ENDS, "ray", *place, "sleep", "60"],
        input=line,
        env={"PATH": "/usr/bin:/bin"},
        timeout=10,
        check=False,
    )
    assert not temp.exists()
    called = folder / "called"
    assert called.exists() == is_cancelled
    if is_cancelled:
        assert called.read_text() == "-P -m tune.slurm.orphans magtkd-toy-worker h:1\n"


def test_orphans_are_cancelled_until_none_is_left(folder, monkeypatch):
    """Others of the same name have another driver."""
    for name, text in (
        ("squeue", "cat queue 2>/dev/null; true"),
        ("scancel", 'echo "$*" >>cancelled; echo "9|PENDING|other:1" >queue'),
    ):
        stub = folder / name
        stub.write_text(f"#!/bin/bash\n{text}\n")
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(orphans, "PAUSE_SECONDS", 0.0)
    (folder / "queue").write_text("7|PENDING|h:1\n8|RUNNING|h:1\n9|PENDING|other:1\n")
    orphans.cancel_orphans("magtkd-toy-worker", "h:1")
    assert (folder / "cancelled").read_text() == "7 8\n"
