"""Everything that a GPU changes: whether it computes what a CPU does, in which memory, how fast.

It needs torch, transformers and the core trainer, no installation of this project, no network and
no data; without a device the same checks run on the CPU at a small size. Where pydantic, pyarrow
and the like are missing, it installs carried wheels into a temporary folder:

    benchmarks/gpu.sh --pack --python-version 3.12    # where there is network
    benchmarks/gpu.sh                                 # on the machine with the GPU

Exit: 0 if nothing failed, 1 if a check did, 2 if something that all checks need is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_packages import install, lacking, pack
from gpu_rows import Row, exit_code, skipped, table
from gpu_worker import BROKEN, Case, failure, serve

WHEELS = Path(__file__).resolve().parent / "wheels"
BUDGET = 540.0
START = 120.0
"""Seconds that a process may take to import everything."""
NO_DEVICE = "no CUDA device: the same checks on the CPU at small size"

TEXT = ("features", "tiny", "bert", "roberta", "minilm")
AUDIO = ("data2vec-audio", "wav2vec2", "hubert", "wavlm")
VIDEO = ("timesformer", "videomae")
FUSION = ("magt", "sdt", "concat")
ONE_EACH = ("roberta", "data2vec-audio", "timesformer")
LARGE = ("roberta-large", "data2vec-audio-base", "timesformer-base", "videomae-base")


def every_case() -> Iterator[Case]:
    """All cases, in the order in which they are tried."""
    for kind in (*TEXT, *AUDIO, *VIDEO):
        yield Case("encoder", kind, "gpu_checks.encoder", {"kind": kind})
    for kind, train in (("roberta", "prompt"), ("data2vec-audio", "head"), ("videomae", "head")):
        arguments = {"kind": kind, "train": train}
        yield Case("encoder", f"{kind}, train {train}", "gpu_checks.encoder", arguments)
    for model in FUSION:
        yield Case("fusion", model, "gpu_checks.fusion", {"model": model})
    for kind in (*ONE_EACH, "videomae"):
        yield Case("checkpointing", kind, "gpu_checks.checkpointing", {"kind": kind})
    for kind in ONE_EACH:
        yield Case("LoRA", kind, "gpu_checks.lora", {"kind": kind})
    for kind in ("magt", *ONE_EACH):
        yield Case("restore", kind, "gpu_checks.travels", {"kind": kind})
    for precision in ("bfloat16", "float16"):
        arguments = {"kind": "magt", "precision": precision}
        yield Case("restore", f"magt, {precision}", "gpu_checks.travels", arguments)
    for kind in ("magt", "sdt", *ONE_EACH):
        yield Case("repeats", kind, "gpu_checks.repeats", {"kind": kind})
    for precision in ("float32", "bfloat16"):
        yield Case("speed", precision, "gpu_sizes.speed", {"precision": precision}, limit=90)
    yield Case("sharing", "magt", "gpu_share.sharing", limit=120)
    for kind in ("fusion", "data2vec-audio", "timesformer"):
        yield Case("waiting", kind, "gpu_sizes.waiting", {"kind": kind})
    for encoder in LARGE:
        yield Case("memory", encoder, "gpu_sizes.memory", {"encoder": encoder})
    frozen = {"encoder": "roberta-large", "train": "prompt"}
    yield Case("memory", "roberta-large, train prompt", "gpu_sizes.memory", frozen)
    for encoder in ("roberta-large", "data2vec", "timesformer"):
        yield Case(
            "memory", f"{encoder}, a step", "gpu_sizes.steps", {"encoder": encoder}, limit=90
        )


class Worker:
    """The process that runs cases; another one after it has broken."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None

    def start(self) -> dict[str, Any]:
        """What the device is.

        Raises:
            EOFError, TimeoutError: the process ended, or took too long.
        """
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        environment: dict[str, Any] = self._receive(time.monotonic() + START)
        return environment

    def run(self, case: Case, limit: float) -> Iterator[Row]:
        """The rows of a case, a failure among them where it ends too early or too late."""
        try:
            if self._process is None:
                self.start()
            self._pipe.send(case)
            ends = time.monotonic() + limit
            while isinstance(one := self._receive(ends), Row):
                yield one
            if one == BROKEN:
                self.stop()
        except TimeoutError:
            self.stop()
            yield failure(case, f"still at it after {limit:.0f} s")
        except (EOFError, OSError):
            yield failure(case, f"the process died, exit code {self.stop()}")

    def _receive(self, ends: float) -> Any:
        if not self._pipe.poll(max(0.0, ends - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv()

    def stop(self) -> int | None:
        """End the process; its exit code where it had ended by itself."""
        if self._process is None:
            return None
        self._process.join(1)
        code: int | None = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process = None
        return code


def run_cases(cases: Sequence[Case], budget: float) -> tuple[dict[str, Any], list[Row]]:
    """The device, and the rows of all cases; each is shown as it comes."""
    ends = time.monotonic() + budget
    worker = Worker()
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        stack.callback(worker.stop)
        header = worker.start()
        print(NO_DEVICE if header["device"] is None else _headline(header), file=sys.stderr)
        for case in cases:
            left = ends - time.monotonic()
            if left <= 0:
                rows.append(skipped(case.check, case.name, "no time left"))
                continue
            started = time.monotonic()
            for one in worker.run(case, min(case.limit, left)):
                rows.append(one)
                seconds = time.monotonic() - started
                line = f"{one.check}: {one.case}: {one.measured} {one.outcome}, {seconds:.1f} s"
                print(line, file=sys.stderr, flush=True)
    return header, rows


def _headline(header: dict[str, Any]) -> str:
    device = f"{header['device']}, {header['memory_gib']} GiB" if header["device"] else "CPU"
    return (
        f"{device}; torch {header['torch']}, CUDA {header['cuda']}, transformers "
        f"{header['transformers']}, Python {platform.python_version()}; {header['date']}"
    )


def prepare(wheels: Path, target: Path) -> str | None:
    """Install what is missing; the line to end with where that leaves nothing to do."""
    left = install(lacking(), wheels, target)
    # Before what is there: of that it has only what must go with a package that was missing.
    sys.path.insert(1, str(target))
    needed = [package.name for package in left if package.only_for is None]
    if not needed:
        return None
    return (
        f"gpu.sh: {', '.join(needed)}: missing or too old, and no wheel for this Python in "
        f"{wheels}; run benchmarks/gpu.sh --pack --python-version "
        f"{'.'.join(platform.python_version_tuple()[:2])} where there is network and carry that "
        "folder (torch, transformers and numpy are never carried)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checks = tuple(dict.fromkeys(case.check for case in every_case()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here as well")
    parser.add_argument("--only", nargs="+", choices=checks, metavar="CHECK", default=checks)
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS")
    parser.add_argument("--wheels", type=Path, default=WHEELS, metavar="DIR")
    packing = parser.add_argument_group("fetching wheels, where there is network")
    packing.add_argument("--pack", type=Path, nargs="?", const=WHEELS, metavar="DIR")
    packing.add_argument("--python-version", default="3.12", metavar="3.N")
    packing.add_argument("--packages", nargs="+", metavar="NAME", help="these only")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.pack is not None:
        try:
            pack(options.pack, options.python_version, options.packages)
        except subprocess.CalledProcessError as error:
            return int(error.returncode)
        return 0
    with tempfile.TemporaryDirectory(prefix="magtkd-packages-") as target:
        problem = prepare(options.wheels, Path(target))
        if problem is not None:
            print(problem, file=sys.stderr)
            return 2
        started = time.monotonic()
        cases = [case for case in every_case() if case.check in options.only]
        header, rows = run_cases(cases, options.budget)
    print(_headline(header))
    if header["device"] is None:
        print(NO_DEVICE)
    print(table(rows))
    if options.json is not None:
        report = {**header, "seconds": round(time.monotonic() - started, 1)}
        report["rows"] = [asdict(one) for one in rows]
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
