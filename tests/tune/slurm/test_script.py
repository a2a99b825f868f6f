"""The batch scripts: what they ask for, and what a shell makes of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.config import Resources
from magtkd.errors import SweepError
from tune.cluster import Node, shape_of
from tune.slurm import JobRequest, Sweep, sweep_script
from tune.slurm.provider import WORKER
from tune.slurm.script import JOB_ID_RESOURCE, worker_script
from tune.slurm.worker_jobs import autoscaling_config

ODD = "a b'c\"d$e`f\\g%h;i&j"
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def sweep(**changes):
    fields = {"name": "mosi", "text": "name: mosi", "storage": "results"}
    return Sweep(**(fields | changes))


def directives(script):
    """The options of sbatch, as it would read them: up to the first command."""
    lines = script.splitlines()
    head = lines[1 : next(i for i, line in enumerate(lines) if i and not line.startswith("#"))]
    return [shlex.split(line.removeprefix("#SBATCH "))[0] for line in head]


def check(script, *command):
    answer = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_what_is_asked_for():
    request = JobRequest(
        nodes=4,
        gpus_per_node="a100:2",
        cpus_per_node=8,
        mem="64G",
        time="08:00:00",
        partition="gpu",
        account="lab",
        options=["--qos=high", "--signal=B:USR1@300"],
    )
    options = directives(sweep_script(sweep(), request))
    assert (
        [
            "--nodes=4",
            "--ntasks-per-node=1",
            "--cpus-per-task=8",
            "--gpus-per-node=a100:2",
            "--mem=64G",
            "--time=08:00:00",
            "--partition=gpu",
            "--account=lab",
            f"--chdir={os.getcwd()}",
            "--qos=high",
            "--signal=B:USR1@300",  # after ours, so that it counts
        ]
        == options[6:]
    )
    assert {
        "--job-name=magtkd-mosi",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@120",
        f"--output={os.getcwd()}/results/sweeps/mosi/slurm/%j.log",
    } < set(options)


def test_what_is_left_out_is_slurms_default():
    options = directives(sweep_script(sweep(), JobRequest()))
    assert not [one for one in options if one.startswith(("--time", "--mem", "--gpus", "--cpus"))]
    assert "--num-gpus" not in sweep_script(sweep(), JobRequest())  # Ray counts those it sees


def test_the_environment_is_this_one():
    script = sweep_script(sweep(), JobRequest())
    assert f"python={sys.executable}\n" in script
    file = f"{os.getcwd()}/results/sweeps/mosi/slurm/sweep.yaml"
    assert f"{file} --resume-or-start" in script
    assert "RAY_AUTH_MODE=token" in script
    assert "unset RAY_ADDRESS" in script
    assert "=auto" not in script


def test_a_remote_storage_keeps_its_address():
    script = sweep_script(sweep(storage="s3://bucket/lab?region=x&y=z"), JobRequest())
    assert "'--storage=s3://bucket/lab?region=x&y=z'" in script
    assert f"logs={os.getcwd()}/magtkd-results/sweeps/mosi/slurm\n" in script


@pytest.mark.parametrize("text", ["plain", ODD])
def test_a_shell_finds_no_fault(text):
    given_ = sweep(storage=f"/{text}")
    for request in (JobRequest(), JobRequest(nodes=3, gpus_per_node="2", cpus_per_node=4)):
        worker = worker_script(
            "n", "c", request, logs=f"/{text}", token=f"/{text}/t", address="h:1"
        )
        for script in (sweep_script(given_, request), worker):
            check(script, "bash", "-n")
            if text == "plain" and shutil.which("shellcheck"):
                check(script, "shellcheck", "--shell=bash", "--severity=warning", "-")


@given(path=TEXT)
def test_no_text_leaves_its_place(path):
    """Whatever the storage is called, the driver's command has it as it was given."""
    given_ = sweep(storage=str(Path("/x") / path))
    script = sweep_script(given_, JobRequest())
    start = script.index("-m tune.cli sweep ") + len("-m tune.cli sweep ")
    words = shlex.split(script[start : script.index(" \\\n", start)])
    assert words == given_.arguments()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "--nodes 0: a job has at least one node"),
        ({"cpus_per_node": 0}, "--cpus-per-node 0: a node has at least one CPU"),
        ({"gpus_per_node": "two"}, "--gpus-per-node 'two': not what Slurm takes"),
        ({"mem": "64 GB"}, "--mem '64 GB': not what Slurm takes"),
        ({"time": "8h"}, "--time '8h': not what Slurm takes"),
        ({"time": "2"}, "--time 2: too short"),
        ({"time": "00:01:59"}, "--time 00:01:59: too short"),
        ({"options": ["qos=high"]}, "--sbatch 'qos=high': not an option of sbatch"),
        ({"options": ["--qos high"]}, "--sbatch '--qos high': not an option of sbatch"),
        ({"options": ["--comment=x"]}, "--sbatch '--comment=x': --comment is magtkd's own"),
        ({"options": ["--job-name=x"]}, "--job-name is magtkd's own"),
        ({"options": ["--x=a\n#SBATCH --y"]}, "has a line break"),
        ({"partition": "a\nrm"}, "has a line break"),
    ],
)
def test_wrong_values_are_one_line(changes, message):
    with pytest.raises(SweepError, match=message):
        JobRequest(**changes)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90),
        ("3:30", 3.5),
        ("08:00:00", 480),
        ("1-0", 1440),
        ("1-02:30", 1590),
        ("2-00:00:30", 2880.5),
        ("UNLIMITED", None),
        (None, None),
    ],
)
def test_times_are_read_as_slurm_reads_them(time, minutes):
    assert JobRequest(time=time).minutes == minutes


@pytest.mark.parametrize(
    ("given_", "resources"),
    [
        ("a100:2", {"accelerator_type:A100": 1}),
        ("nvidia_h100-sxm5-80gb:8", {"accelerator_type:H100": 1}),
        ("rtx_pro_6000:1", {"accelerator_type:RTX-PRO-6000": 1}),
        ("big:4", {"big": 4}),
        ("a100:0", {}),
        ("2", {}),
        (None, {}),
    ],
)
def test_ray_learns_the_type_of_gpus(given_, resources):
    """On each node, and for those that the autoscaler may add."""
    request = JobRequest(gpus_per_node=given_)
    assert request.gpu_resources == resources
    script = sweep_script(sweep(), request)
    found = re.search(r"'--resources=(.*)'", script)
    assert (json.loads(found[1]) if found else {}) == resources
    worker = worker_script("n", "c", request, logs="/x", token="/x/t", address="h:1")
    found = re.search(r"--resources=(.*)$", worker, re.MULTILINE)
    (text,) = shlex.split(found[1].replace('"$SLURM_JOB_ID"', "7"))
    assert json.loads(text) == {JOB_ID_RESOURCE: 7, **resources}
    tree = autoscaling_config(request, 2, 5.0, Path("/x"), "n", "c")
    added = tree["available_node_types"][WORKER]["resources"]
    assert added == {"CPU": 1, "GPU": request.num_gpus or 0, **resources}
    stage = Resources(gpu=1, accelerator_type="A100")
    name_of = resources.get("accelerator_type:A100") is not None
    assert Node(name="n", totals=added).fits(shape_of(stage)) == name_of


def test_amounts():
    request = JobRequest(gpus_per_node="a100:4", mem="2G")
    assert (request.num_gpus, request.memory_bytes) == (4, 2 << 30)
    assert JobRequest(mem="512").memory_bytes == 512 << 20
    assert (JobRequest().num_gpus, JobRequest().memory_bytes) == (None, None)


def test_each_node_has_a_new_folder_that_is_closed_to_others():
    """`/tmp/ray-JOB` could be made by another user before."""
    script = sweep_script(sweep(), JobRequest())
    start = script.index("on_node=")
    lines = script[start : script.index("\n", script.index("once=("))]
    shown = 'stat -c "%a %n" "${1#*=}"; rmdir "${1#*=}"; echo "$2"'
    run = f"{lines}\n" + '"${once[@]}" bash -c "$0" ray'
    done = subprocess.run(
        ["bash", "-c", run, shown],
        env={**os.environ, "SLURM_JOB_ID": "123456789", "SLURM_CPUS_ON_NODE": "3"},
        text=True,
        capture_output=True,
        check=True,
    )
    found = re.fullmatch(r"700 (/tmp/ray-123456789\.\w{6})\n--num-cpus=3\n", done.stdout)
    assert found, done
    assert len(found[1]) < 39  # what is left for it in the path of a socket
