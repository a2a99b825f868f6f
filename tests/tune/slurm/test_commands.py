"""`magtkd slurm` where it cannot do what it is asked for, and where Ray's head listens."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import yaml

from magtkd.cli import run_app
from tune.cli import app
from tune.slurm.head import free_port

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
    assert (folder / "magtkd-results/sweeps/toy/slurm").is_dir()  # for whoever submits it


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
