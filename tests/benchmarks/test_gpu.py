"""The checks of a GPU, on a CPU at small size; and that they see what is wrong."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CHECKS = {
    "encoder",
    "fusion",
    "checkpointing",
    "LoRA",
    "restore",
    "repeats",
    "speed",
    "sharing",
    "waiting",
    "memory",
}


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def load(name: str) -> Any:
    return importlib.import_module(name)


# --- the real thing ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_check_has_a_row_and_none_fails(tmp_path: Path) -> None:
    command = ["bash", str(BENCHMARKS / "gpu.sh"), "--json", str(tmp_path / "rows.json")]
    # Nothing of this checkout is on the path by itself.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
        env=environment | {"PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "rows.json").read_text())
    first, second, *lines = done.stdout.splitlines()
    assert first.startswith(f"CPU; torch {report['torch']}, CUDA ")
    assert second == "no CUDA device: the same checks on the CPU at small size"
    rows = report["rows"]
    assert len(lines) == 1 + len(rows)
    assert [row for row in rows if row["outcome"] == "FAILED"] == []
    assert {row["check"] for row in rows if row["outcome"] == "ok"} == CHECKS
    for case in load("gpu").every_case():
        kind = case.name.partition(",")[0]
        if case.check in {"encoder", "fusion", "LoRA", "restore", "repeats", "checkpointing"}:
            assert [row for row in rows if row["check"] == case.check and kind in row["case"]]
    for precision in ("float32", "bfloat16", "float16"):
        assert sum(precision in row["case"] for row in rows) > 10


def test_no_figure_of_docs_is_missing() -> None:
    sizes = load("gpu_sizes")
    for encoder in load("gpu").LARGE:
        trained, frozen = (sizes.documented(encoder, train) for train in ("full", "head"))
        assert 4 < trained / frozen < 6  # 20 bytes against 4, one decimal each


# --- the checks see what is wrong -------------------------------------------------------------


def test_a_broken_number_fails() -> None:
    rows = load("gpu_rows")
    assert rows.close([1.0, 2.0], [1.0, 2.001], 1e-3)
    for measured in ([1.0, 2.1], [1.0, math.nan], [math.inf, 2.0], [1.0], []):
        assert not rows.close(measured, [1.0, 2.0], 1e-3)
    assert rows.falling([2.0, 2.5, 1.0])
    for losses in ([1.0, 1.0], [1.0, 2.0], [2.0, math.nan, 1.0], [1.0]):
        assert not rows.falling(losses)
    good = rows.row("check", "case", "1", "1", rows.close([1.0], [1.0], 0.0))
    bad = rows.row("check", "case", "1", "nan", rows.close([math.nan], [1.0], 0.5))
    assert (good.outcome, bad.outcome) == ("ok", "FAILED")
    absent = rows.skipped("check", "case", "no peft")
    codes = [rows.exit_code(one) for one in ([good, absent], [good, bad], [absent], [])]
    assert codes == [0, 1, 1, 1]
    assert rows.table([bad]).splitlines()[1].split() == ["check", "case", "1", "nan", "FAILED"]


def test_another_computation_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = load("gpu_checks")
    make = checks._session
    assert [row.outcome for row in checks.fusion(tmp_path, "concat")] == ["ok"] * 3

    def other(inputs: Any, stage: str, values: Any, precision: str) -> Any:
        return make(inputs, stage, {**values, "learning_rate": 0.05}, precision)

    monkeypatch.setattr(checks, "_session", other)
    assert [row.outcome for row in checks.fusion(tmp_path, "concat")] == ["FAILED"] * 3


@pytest.mark.slow
def test_a_check_that_breaks_or_hangs_does_not_end_the_others() -> None:
    gpu, worker = load("gpu"), load("gpu_worker")
    cases = [
        worker.Case("encoder", "broken", "gpu_checks.encoder", {"kind": "no such"}),
        worker.Case("fusion", "concat", "gpu_checks.fusion", {"model": "concat"}),
        worker.Case("fusion", "dies", "sys.exit"),
        worker.Case("fusion", "slow", "gpu_checks.fusion", {"model": "magt"}, limit=0.01),
        worker.Case("fusion", "concat", "gpu_checks.fusion", {"model": "concat"}),
    ]
    header, rows = gpu.run_cases(cases, budget=200)
    assert header["device"] is None
    fine = ["ok", "ok", "ok"]
    assert [row.outcome for row in rows] == ["FAILED", *fine, "FAILED", "FAILED", *fine]
    assert rows[0].measured == "KeyError: 'no such'"
    assert rows[4].measured == "the process died, exit code 1"
    assert rows[5].measured == "still at it after 0 s"
    assert load("gpu_rows").exit_code(rows) == 1
    _, rows = gpu.run_cases(cases[-1:], budget=0)
    assert [row.outcome for row in rows] == ["skipped: no time left"]


def test_the_peak_is_that_of_the_device() -> None:
    peak = load("gpu_sizes").peak_flops
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak("NVIDIA H100 PCIe", "float32") == 51.2e12
    assert peak("NVIDIA A100-SXM4-80GB", "float32") == 19.5e12
    assert peak("NVIDIA A100-SXM4-80GB", "float16") == 312e12
    assert peak("NVIDIA L4", "float32") == 30.3e12
    assert peak("Quadro A10000", "float32") is None


# --- packages ---------------------------------------------------------------------------------


def test_what_is_missing_comes_from_a_wheel_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, packages = load("gpu"), load("gpu_packages")
    carried = packages.Package("gpu-carried", "gpu_carried")
    absent = packages.Package("gpu-absent", "gpu_absent")
    optional = packages.Package("gpu-optional", "gpu_optional", only_for="LoRA")
    old = packages.Package("numpy", "numpy", (99,), is_carried=False)
    partner = packages.Package("pytest", "pytest", goes_with="gpu-carried")
    there = packages.Package("numpy", "numpy", (1, 20))
    every = [carried, absent, optional, old, partner, there]
    assert packages.lacking(every) == [carried, absent, optional, old, partner]
    with zipfile.ZipFile(tmp_path / "gpu_carried-1.0-py3-none-any.whl", "w") as wheel:
        info = "gpu_carried-1.0.dist-info"
        wheel.writestr("gpu_carried.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gpu-carried\nVersion: 1.0")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    left = packages.install(every[:-1], tmp_path, tmp_path / "target")
    assert left == [absent, optional, old]
    assert [path.name for path in (tmp_path / "target").glob("*.py")] == ["gpu_carried.py"]

    monkeypatch.setattr(gpu, "lacking", lambda: [absent, optional])
    monkeypatch.setattr(sys, "path", [*sys.path])
    said = gpu.prepare(tmp_path, tmp_path / "other")
    assert said.startswith("gpu.sh: gpu-absent: missing or too old, and no wheel for this Python")
    assert "\n" not in said
    monkeypatch.setattr(gpu, "lacking", lambda: [optional])
    assert gpu.prepare(tmp_path, tmp_path / "other") is None


def test_every_package_that_is_carried_has_a_version() -> None:
    pinned = (BENCHMARKS.parent / "constraints.txt").read_text().lower().split()
    names = {line.partition("==")[0] for line in pinned}
    assert {package.name.lower() for package in load("gpu_packages").PACKAGES} <= names
