"""What the benchmarks share: the machine, alternating runs, ratios, a table and JSON."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from magtkd.config import load_config
from magtkd.errors import MagtkdError
from tune.config import SweepConfig, check_sweep
from tune.ledger import SweepState
from tune.results import sweep_cost

__all__ = [
    "EXPERIMENTS",
    "SweepRun",
    "alternate",
    "arguments",
    "command_line",
    "in_process",
    "machine",
    "median_ratio",
    "median_seconds",
    "publish",
    "run_timed",
    "scratch",
    "sweep_with",
]

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
LIBRARIES = ("magtkd", "ray", "torch", "optuna", "mlflow", "pyarrow", "numpy", "pydantic")
CHILD = "--child"


# --- arguments, machine, results --------------------------------------------------------------


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON here as well")
    parser.add_argument(CHILD, metavar="JSON", help=argparse.SUPPRESS)
    return parser


def machine() -> dict[str, Any]:
    """The machine, the versions, and the load before anything was measured."""
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def publish(
    title: str,
    result: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    out: Path | None,
) -> None:
    """Print a table for people and the whole result as JSON, which `out` gets as well."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(_cell, row))
    text = json.dumps({"benchmark": title, **result}, indent=2)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    where = result["machine"]
    Console(width=120).print(table)
    print(
        f"{where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB; Python "
        f"{where['python']}, ray {where['ray']}, torch {where['torch']}; load before "
        f"{', '.join(map(str, where['load_before']))}; {where['started']}"
    )
    print(text)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


# --- comparing --------------------------------------------------------------------------------


def alternate(
    variants: Mapping[str, Callable[[], dict[str, Any]]], num_rounds: int
) -> list[dict[str, dict[str, Any]]]:
    """Run each variant once a round, in turning order, so that no one always has the warm caches.

    Returns:
        for each round, each variant's answer, which has `seconds`.
    """
    names, rounds = list(variants), []
    for index in range(num_rounds):
        turn = index % len(names)
        measured = {}
        for name in names[turn:] + names[:turn]:
            load = os.getloadavg()[0]
            measured[name] = variants[name]() | {"load_before": round(load, 2)}
            shown = f"{measured[name]['seconds']:.1f} s, load before {load:.2f}"
            print(f"round {index + 1}/{num_rounds}: {name}: {shown}", file=sys.stderr, flush=True)
        rounds.append({name: measured[name] for name in names})
    return rounds


def median_ratio(rounds: Sequence[Mapping[str, Mapping[str, Any]]], over: str, under: str) -> float:
    """The median over the rounds of the quotient of two variants' seconds."""
    ratios = [one[over]["seconds"] / one[under]["seconds"] for one in rounds]
    return float(statistics.median(ratios))


def median_seconds(rounds: Sequence[Mapping[str, Mapping[str, Any]]], name: str) -> float:
    """The median over the rounds of a variant's seconds."""
    return float(statistics.median(one[name]["seconds"] for one in rounds))


def in_process(
    script: str,
    child: Mapping[str, Any],
    arguments: Sequence[str] = (),
    timeout: float = 7200,
) -> dict[str, Any]:
    """Run a variant in a process of its own: with an environment and caches of its own.

    The script is called with `--child JSON`; the last line that it prints is its answer.
    """
    command = [sys.executable, script, *arguments, CHILD, json.dumps(child)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=_environment()
    )
    if done.returncode:
        raise RuntimeError(f"{script}: {child}: exit {done.returncode}: {done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def command_line(*words: str) -> str:
    """Run `magtkd` as a person would, and return what it printed on stdout.

    Raises:
        SystemExit: with its output, if it failed.
    """
    program = Path(sys.executable).with_name("magtkd")
    done = subprocess.run(
        [str(program), *words], stdout=subprocess.PIPE, text=True, check=False, env=_environment()
    )
    if done.returncode:
        raise SystemExit(f"magtkd {' '.join(words)}: exit {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without what would make a benchmark use a cluster or tracking server of the environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"MLFLOW_TRACKING_URI", "RAY_ADDRESS"}
    }


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="magtkd-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


# --- sweeps -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepRun:
    """A sweep that was run: its state, the `seconds` with Ray up already, and where these went."""

    state: SweepState
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Plain values: seconds, those until the first report, trials and stages."""
        state = self.state
        suggested = [trial.suggested_time for trial in state.trials.values()]
        reported = [report.time for trial in state.trials.values() for report in trial.reports[:1]]
        ended = [trial.ended_time or 0 for trial in state.trials.values()]
        stages = {
            stage: {
                "trained": cost.num_trained,
                "reused": cost.num_reused,
                "seconds": round(cost.seconds_trained, 3),
                "saved": round(cost.seconds_saved, 3),
            }
            for stage, cost in sweep_cost(state).items()
        }
        return {
            "seconds": self.seconds,
            "seconds_to_first_trial": (min(suggested) - state.opened_time) / 1000,
            "seconds_to_first_report": (min(reported) - state.opened_time) / 1000,
            "seconds_after_last_trial": ((state.closed_time or 0) - max(ended)) / 1000,
            "seconds_after_the_sweep_closed": self.seconds
            - ((state.closed_time or 0) - state.opened_time) / 1000,
            "trials": dict(state.count()),
            "stages": stages,
        }


def sweep_with(file: str, overrides: Sequence[str], **sections: Any) -> SweepConfig:
    """A sweep of `experiments/`, with whole sections replaced.

    Raises:
        SystemExit: with one line, where it is wrong.
    """
    try:
        loaded = load_config(EXPERIMENTS / file, overrides, SweepConfig)
        sweep = SweepConfig.model_validate(loaded.model_dump(mode="json") | sections)
        check_sweep(sweep)
    except MagtkdError as error:
        raise SystemExit(str(error)) from None
    return sweep


def run_timed(sweep: SweepConfig, storage: Path, **options: Any) -> SweepRun:
    """Run a sweep on a Ray of its own, which is started before the clock."""
    # Ray, Optuna and MLflow, which a variant without them must not load.
    from tune.cluster import ray_cluster
    from tune.config import SweepOptions
    from tune.driver import run_sweep

    with ray_cluster():
        started = time.perf_counter()
        quiet = Console(file=io.StringIO())
        state = run_sweep(sweep, SweepOptions(storage=str(storage), **options), quiet)
        seconds = time.perf_counter() - started
    return SweepRun(state, seconds)
