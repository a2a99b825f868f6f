"""Faults of a cluster's hosts and of its object store, each in a sweep of its own: the part of
`chaos.py` that needs hosts, which are network namespaces of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos_checks as checks
import common
import psutil
from chaos_checks import Failure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cluster.object_store import CREDENTIALS, FailingProxy, MotoServer
from tests.cluster.several_hosts import HEAD, NET, Hosts

__all__ = ["FAULTS", "run_faults"]

NUM_HOSTS = 4
"""A head without CPUs for stages, two hosts of one CPU, and one that can be added."""
NUM_TRIALS = 24
SWEEP: dict[str, Any] = {
    "data": {"synthetic": {"num_dialogues": 150, "mean_length": 8}},
    "fusion": {"epochs": 60, "hidden_dim": 64},
    "search": {"num_trials": NUM_TRIALS, "max_concurrent": 4},
    "space": {"fusion.dropout": {"float": [0.1, 0.5]}, "audio.dropout": {"choice": [0.1, 0.2]}},
}
CUT_SECONDS, AWAY_SECONDS = 60.0, 30.0
LONGEST_SECONDS = 900.0


@dataclass
class Struck:
    """What one fault did to a sweep."""

    kind: str
    gap: float = 0.0
    """Seconds from the fault to the next event."""
    longest: float = 0.0
    """Seconds of the longest time without an event from then on."""
    seconds: float = 0.0
    code: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    """The driver's lines on the terminal, but for those on trials that end."""
    failures: list[Failure] = field(default_factory=list)
    note: str = ""

    @property
    def outcome(self) -> str:
        """In words."""
        states = ", ".join(f"{number} {state}" for state, number in self.states.items())
        return f"exit {self.code}; {states}{self.note}"

    def __str__(self) -> str:
        events = f"next event after {self.gap:.1f} s, at most {self.longest:.1f} s without one"
        return f"{self.kind}: {self.outcome}; {events}; {self.seconds:.0f} s in all"


class Site:
    """Hosts with Ray, a sweep that runs on them, and where it keeps its artifacts."""

    def __init__(self, hosts: Hosts, proxy: FailingProxy | None) -> None:
        self.hosts, self.proxy = hosts, proxy
        self.storage = proxy.address("chaos") if proxy else str(hosts.folder / "store")
        self.struck_at = 0.0
        self.driver: subprocess.Popen[str]

    @property
    def ledger(self) -> Path:
        """The driver's copy of it."""
        root = self.hosts.folder / ("magtkd-results" if self.proxy else "store")
        return root / "sweeps" / "hosts" / "ledger.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """What the ledger has by now."""
        return checks.read_lines(self.ledger) if self.ledger.is_file() else []

    def num_reports(self) -> int:
        """How many epochs it has."""
        return sum(line["kind"] == "trial_report" for line in self.lines())

    def begin(self) -> None:
        """The fault begins now."""
        self.struck_at = time.time()

    def start(self) -> subprocess.Popen[str]:
        """Start the driver."""
        command = ("-m", "tune.cli", "sweep", "sweep.yaml", "--storage", self.storage)
        options = ("--address", HEAD, "--wait-nodes", "3", "--no-tracking")
        self.driver = self.hosts.start(1, sys.executable, *command, *options)
        return self.driver


# --- faults -----------------------------------------------------------------------------------


def cut_link(site: Site) -> str:
    """A host that trains is not reachable for a minute; its launcher starts Ray again there."""
    site.begin()
    site.hosts.call("cut", 3)
    time.sleep(CUT_SECONDS)
    site.hosts.call("join", 3)
    return _until_used(site, 3)


def kill_host(site: Site) -> str:
    """A host loses its power, and comes back."""
    site.begin()
    site.hosts.call("kill", 3)
    time.sleep(5)
    site.hosts.call("boot", 3)
    site.hosts.start_launcher(3)
    return _until_used(site, 3)


def pause_head(site: Site) -> str:
    """The host of Ray's head and of the driver stands still, as a virtual machine that is moved."""
    found = site.hosts.processes(1)
    site.begin()
    _signal(found, signal.SIGSTOP)
    time.sleep(AWAY_SECONDS)
    _signal(found, signal.SIGCONT)
    # `nsenter`, which started the driver there, has stopped with it.
    site.driver.send_signal(signal.SIGCONT)
    return ""


def add_host(site: Site) -> str:
    """A host joins."""
    site.begin()
    site.hosts.start_node(4)
    return _until_used(site, 4)


def fill_disk(site: Site) -> str:
    """The local disk of a host that trains, with Ray's logs and objects, is full."""
    site.begin()
    fill = "dd if=/dev/zero of=/tmp/ray/full bs=1M 2>/dev/null; true"
    site.hosts.run(3, "bash", "-c", fill)
    return ""


def store_mode(mode: str) -> Callable[[Site], str]:
    """The object store behaves otherwise for half a minute."""

    def strike(site: Site) -> str:
        assert site.proxy is not None
        site.begin()
        site.proxy.mode = mode
        time.sleep(AWAY_SECONDS)
        site.proxy.mode = "pass"
        return ""

    return strike


STORE = {"S3 slow": "slow", "S3 500": "500", "S3 503": "503", "S3 away": "reset"}
FAULTS: dict[str, Callable[[Site], str]] = {
    "link cut": cut_link,
    "host dies": kill_host,
    "head paused": pause_head,
    "host added": add_host,
    "disk full": fill_disk,
    **{name: store_mode(mode) for name, mode in STORE.items()},
}


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _until_used(site: Site, host: int) -> str:
    """How long after it is back, or Ray was started there, a host trains a stage."""
    used = _seconds_until(lambda: _is_training(site, host))
    return f"; h{host} at work " + ("never" if used is None else f"{used:.0f} s later")


def _is_training(site: Site, host: int) -> bool:
    with contextlib.suppress(LookupError, psutil.Error):
        calls = ("Worker.train", "Worker.advance")
        return any(site.hosts.is_busy(host, f"ray::{call}") for call in calls)
    return False


def _seconds_until(condition: Callable[[], bool], seconds: float = 120.0) -> float | None:
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            return None
        time.sleep(0.2)
    return time.monotonic() - start


# --- a sweep ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _site(kind: str) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ch", dir="/tmp")))
        home = folder / "home"
        home.mkdir()
        hosts = Hosts(folder, home, NUM_HOSTS)
        stack.callback(hosts.close)
        proxy = None
        if kind in STORE:
            server = MotoServer(folder)
            stack.callback(server.close)
            proxy = FailingProxy(server.port, f"{NET}.254")
            stack.callback(proxy.close)
            os.environ.update(CREDENTIALS)  # which all hosts have
        hosts.write_sweep(**SWEEP)
        if kind == "disk full":
            hosts.run(3, "mount", "-t", "tmpfs", "-o", "size=200m", "none", "/tmp/ray")
        hosts.start_head()
        for host in (2, 3):
            hosts.start_launcher(host)
        yield Site(hosts, proxy)


def strike(kind: str) -> Struck:
    """One sweep, one fault, and all checks."""
    struck, started = Struck(kind), time.monotonic()
    with _site(kind) as site:
        process = site.start()
        if _seconds_until(lambda: _is_at_work(site) or process.poll() is not None, 300) is None:
            struck.failures.append(Failure("sweep", None, "did not begin within 300 s"))
        if process.poll() is None and not struck.failures:
            struck.note = FAULTS[kind](site)
        try:
            _, err = process.communicate(timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
            struck.failures.append(Failure("sweep", None, "did not end"))
        lines = site.lines()
        struck.code, struck.seconds = process.returncode, time.monotonic() - started
        struck.shown = [line for line in err.splitlines() if not line.startswith("trial ")]
        struck.states = _states(lines)
        times = [line["time"] / 1000 for line in lines if line["kind"] in checks.NEWS]
        after = [when for when in times if when > site.struck_at]
        gaps = [late - early for early, late in zip([site.struck_at, *after], after, strict=False)]
        struck.gap, struck.longest = (gaps[0], max(gaps)) if gaps else (float("nan"),) * 2
        stages, _ = checks.check_stages(lines)
        struck.failures += [
            *checks.check_trials(lines, NUM_TRIALS),
            *checks.check_epochs(lines),
            *stages,
        ]
        if struck.code != 0:
            said = tuple(err.splitlines()[-6:])
            struck.failures.append(Failure("sweep", None, f"exit code {struck.code}", said))
        if noise := [line for line in struck.shown if "Traceback" in line or ".cc:" in line]:
            struck.failures.append(Failure("terminal", None, "Ray's noise", tuple(noise)))
    return struck


def _is_at_work(site: Site) -> bool:
    return site.num_reports() > 0 and (_is_training(site, 3) or _is_training(site, 2))


def _states(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    states = [trial.state for trial in checks.trials_of(lines).values()]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def run_faults(kinds: Sequence[str], times: int, out: Path | None) -> bool:
    """Every kind so many times, as a table and as JSON; whether a check failed."""
    if os.geteuid() != 0:
        raise SystemExit("chaos.py --hosts: network namespaces need root")
    result: dict[str, Any] = {"machine": common.machine()}
    rows, failures = [], []
    for kind in kinds:
        found = []
        for _ in range(times):
            struck = strike(kind)
            found.append(struck)
            print(struck, *struck.shown, sep="\n    ", file=sys.stderr, flush=True)
            failures += [f"{kind}: {failure}" for failure in struck.failures]
        rows.append(
            [
                kind,
                times,
                "; ".join(dict.fromkeys(one.outcome for one in found)),
                f"{statistics.median(one.gap for one in found):.1f}",
                f"{max(one.longest for one in found):.1f}",
                max(len(one.shown) for one in found),
            ]
        )
        result[kind] = [
            vars(one) | {"failures": [str(failure) for failure in one.failures]} for one in found
        ]
    columns = [
        "fault",
        "times",
        "what happened",
        "s to next event",
        "longest s without one",
        "lines on the terminal",
    ]
    common.publish(f"{len(rows)} faults of hosts and stores", result, columns, rows, out)
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"{len(failures)} failures")
    return bool(failures)
