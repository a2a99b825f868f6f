"""What a worker does before it has any work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from magtkd.pipeline import CORE_TRAINER
from tune.cluster import Shape
from tune.engine.worker import VISIBLE_DEVICES, Worker

CPU = Shape((("CPU", 1.0),))
GPU = Shape((("CPU", 1.0), ("GPU", 0.25)))

LOADS_NO_TORCH = """
import sys
from magtkd.pipeline import CORE_TRAINER
from tune.cluster import Shape
from tune.engine.worker import Worker
worker = Worker(sys.argv[1], Shape((("CPU", 3.0),)), CORE_TRAINER, "sweep")
assert "torch" not in sys.modules
worker.load()
import torch
assert torch.get_num_threads() == 3
"""


@pytest.fixture(autouse=True)
def gpus_of_the_node(monkeypatch):
    for name in VISIBLE_DEVICES:
        monkeypatch.setenv(name, "0,1")


def test_a_worker_that_asks_for_no_gpu_sees_none(tmp_path):
    Worker(str(tmp_path), CPU, CORE_TRAINER, "sweep")
    assert [os.environ[name] for name in VISIBLE_DEVICES] == ["", "", ""]


def test_a_worker_with_a_share_sees_what_ray_gives_it(tmp_path):
    Worker(str(tmp_path), GPU, CORE_TRAINER, "sweep")
    assert [os.environ[name] for name in VISIBLE_DEVICES] == ["0,1"] * 3


def test_torch_is_loaded_with_the_first_work(tmp_path):
    command = [sys.executable, "-c", LOADS_NO_TORCH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
