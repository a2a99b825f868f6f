"""Sweeps whose processes are killed at random and that are resumed until they end; then everything
that was recorded is checked.

    python benchmarks/chaos.py --data mosi.parquet
    python benchmarks/chaos.py --data mosi.parquet --kills 10 --trials 4 --nodes 0 --seed 7

Kinds: the driver; a trial's actor; a worker that trains a stage, or holds a fusion session; the
engine; the raylet of another node; the MLflow server; an artifact that is damaged between two runs;
SIGTERM, SIGINT and SIGUSR1 to the driver. `--nodes 0` has each driver start a Ray of its own, which
ends with it. Without `--data` the corpus is made up and tiny.

    python benchmarks/chaos.py --hosts
    python benchmarks/chaos.py --hosts "link cut" "S3 503" --times 3

Faults of hosts and of an object store, each in a sweep of its own on four hosts, which are network
namespaces of this machine: a link that is cut for a minute, a host that dies and comes back, a head
that stands still for half a minute, a host that is added, a full disk of one host; a store that is
slow, answers 500 or 503, or resets connections, for half a minute. Needs root, and moto's server.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos_checks as checks
import chaos_hosts
import chaos_kills as kills
import common
import yaml
from chaos_checks import Failure
from chaos_kills import (
    DRIVER_KINDS,
    GRACE_SECONDS,
    KINDS,
    SIGNALS,
    WAIT_SECONDS,
    Driver,
    Kill,
    Site,
)

SCHEMES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("random", {"kind": "fifo"}),
    ("tpe", {"kind": "asha", "grace_period": 3, "reduction_factor": 3}),
    ("tpe", {"kind": "median", "grace_period": 5}),
    ("random", {"kind": "pbt", "perturbation_interval": 4}),
)
# All trials of a population are live at once, each in a process that takes a second to start.
LARGEST_POPULATION = 6
MAX_FAILURES = 3
OFTEN = ("driver", "stage", "fusion")
STALLED_SECONDS = 150.0
MAX_CRASHES = 5

CORPUS = {"num_dialogues": 30, "mean_length": 6, "text_dim": 7, "audio_dim": 5, "video_dim": 3}
STAGE = {"epochs": 20, "hidden_dim": 16}
TINY: dict[str, Any] = {
    "data": {"synthetic": CORPUS},
    **dict.fromkeys(("teacher", "audio", "video"), STAGE),
    "fusion": STAGE | {"num_heads": 2, "learning_rate": 0.01, "dropout": 0.5},
}
RATES = {
    "fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True},
    "fusion.dropout": {"float": [0.0, 0.6]},
}


# --- a round ----------------------------------------------------------------------------------


@dataclass
class Round:
    """One sweep: its name, its scheduler, and what happened to it."""

    name: str
    kind: str
    num_trials: int
    folder: Path
    kills: list[Kill] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_drivers: int = 0
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def storage(self) -> Path:
        """Its store, which is its own."""
        return self.folder / "store"

    @property
    def ledger(self) -> Path:
        """Its ledger, which may not exist yet."""
        return self.storage / "sweeps" / self.name / "ledger.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """What the ledger holds by now."""
        return checks.read_lines(self.ledger) if self.ledger.is_file() else []

    def is_finished(self) -> bool:
        """Whether its last line says so."""
        return self.lines()[-1:] != [] and self.lines()[-1].get("reason") == "finished"


def make_round(options: argparse.Namespace, index: int, folder: Path) -> Round:
    """Write the sweep's file: samplers and schedulers take turns."""
    sampler, scheduler = SCHEMES[index % len(SCHEMES)]
    is_population = scheduler["kind"] == "pbt"
    num_trials = min(options.trials, LARGEST_POPULATION) if is_population else options.trials
    made = Round(f"{index}-{sampler}-{scheduler['kind']}", scheduler["kind"], num_trials, folder)
    folder.mkdir(parents=True)
    tree = dict(TINY) if options.data is None else _mosi(options.data)
    if is_population or options.data is None:
        tree["space"] = RATES
        if options.data is None and not is_population:
            tree["space"] = RATES | {"teacher.hidden_dim": {"choice": [8, 12, 16]}}
    tree |= {
        "name": made.name,
        "seed": index,
        "objective": {"metric": "dev/weighted_f1", "mode": "max"},
        "scheduler": scheduler,
        "search": {
            "sampler": sampler,
            "num_trials": num_trials,
            "max_concurrent": num_trials if is_population else options.concurrent,
            "seed": options.seed,
        },
        "resources": {stage: {"cpu": 1} for stage in ("teacher", "audio", "video", "fusion")},
    }
    tree["fusion"] = tree.get("fusion", {}) | {"epochs": options.epochs}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return made


def _mosi(data: Path) -> dict[str, Any]:
    given = yaml.safe_load((common.EXPERIMENTS / "mosi_sweep.yaml").read_text())
    return {
        "extends": str(common.EXPERIMENTS / given["extends"]),
        "data": {"path": str(data.resolve())},
        "space": given["space"],
    }


class Chaos:
    """Runs one round: starts drivers, kills what is drawn, resumes, until the sweep has ended."""

    def __init__(self, site: Site, round_: Round, num_kills: int, options: Any) -> None:
        self._site, self._round, self._num_kills = site, round_, num_kills
        self._draw, self._every = site.draw, options.every
        self._bag: list[str] = []
        self._only = options.kinds
        self._driver = self._start()

    def run(self) -> None:
        """To the sweep's end."""
        started = time.perf_counter()
        num_crashes = 0
        while True:
            while len(self._round.kills) < self._num_kills and not self._wait(self._moment()):
                self._strike()
            if self._driver.code is None:
                self._finish()
            num_crashes += self._ended()
            if self._round.is_finished() or num_crashes > MAX_CRASHES:
                break
            self._driver = self._start()
        self._catch_up()
        self._round.seconds = time.perf_counter() - started
        _note_progress(self._round)

    # --- the driver ---------------------------------------------------------------------------

    def _start(self) -> Driver:
        """A new sweep, or the same one resumed; a ledger without a line is none yet."""
        words = ["sweep", "sweep.yaml"]
        if self._round.lines():
            words = ["sweep", "--resume", self._round.name]
        log = self._round.folder / f"driver-{self._round.num_drivers:03}.log"
        self._round.num_drivers += 1
        self._grown = (time.monotonic(), 0)
        self._expected = False
        return Driver([*words, "--storage", str(self._round.storage)], log, self._site.environment)

    def _ended(self) -> bool:
        """See to a driver that has ended; whether it did so unasked."""
        code, log = self._driver.code, self._driver.log.name
        for title in self._driver.end():
            self._round.failures.append(Failure("processes", None, f"{log}: left {title}"))
        if self._expected or (code == 0 and self._round.is_finished()):
            return False
        last = self._round.kills[-1] if self._round.kills else None
        said = tuple(self._driver.said())
        after = f"after {last.kind} ({last.target})" if last else "before any kill"
        message = f"{log}: the driver ended by itself with exit code {code} {after}"
        self._round.failures.append(Failure("driver", None, message, said))
        say(message)
        return True

    def _finish(self) -> None:
        """No more kills: everything comes back, and the sweep runs on."""
        self._site.tend(all_of_it=True)
        self._site.wait_for_server()
        while not self._wait(5.0):
            pass

    def _catch_up(self) -> None:
        """A sweep that ended while the server was away is sent afterwards, as the driver says; also
        one whose driver was killed when all that it had left to do was to tell MLflow."""
        self._site.tend(all_of_it=True)
        self._site.wait_for_server()
        said = any("tracking is behind by" in line for line in self._driver.said(40))
        if not said and self._driver.code == 0:
            return
        words = ["sync", self._round.name, "--storage", str(self._round.storage)]
        driver = Driver(words, self._round.folder / "sync.log", self._site.environment)
        driver.wait(120)
        driver.end()
        self._round.notes.append(f"MLflow was updated afterwards, exit code {driver.code}")
        if driver.code != 0:
            message = "sync failed"
            self._round.failures.append(Failure("mlflow", None, message, tuple(driver.said())))

    def _wait(self, seconds: float) -> bool:
        """Look after the site for a while; whether the driver has ended meanwhile."""
        deadline = time.monotonic() + seconds
        while self._driver.code is None:
            self._driver.look()
            self._site.tend()
            self._check_growth()
            if (left := deadline - time.monotonic()) <= 0:
                return False
            time.sleep(min(left, 0.1))
        return True

    def _check_growth(self) -> None:
        """A ledger that does not grow for long is a sweep that hangs."""
        size = self._round.ledger.stat().st_size if self._round.ledger.is_file() else 0
        if size != self._grown[1]:
            self._grown = (time.monotonic(), size)
        if time.monotonic() - self._grown[0] > STALLED_SECONDS:
            titles = [f"{p.pid} {kills.title_of(p)[:80]}" for p in self._site.find("^ray::")]
            last = self._round.kills[-1] if self._round.kills else None
            message = f"{self._driver.log.name}: nothing for {STALLED_SECONDS:.0f} s after {last}"
            lines = (*map(checks.shown, self._round.lines()[-2:]), *titles, *self._driver.said(4))
            self._round.failures.append(Failure("hangs", None, message, lines))
            say(message)
            self._driver.end()

    # --- kills --------------------------------------------------------------------------------

    def _moment(self) -> float:
        """Seconds to the next kill; a driver that has just started is mostly left to get going."""
        fresh = not any(
            line["time"] >= self._driver.started and line["kind"] == "trial_report"
            for line in self._round.lines()[-20:]
        )
        if not fresh:
            return self._draw.expovariate(1 / self._every)
        if self._draw.random() < 0.2:
            return self._draw.uniform(0.5, 12.0)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not self._wait(0.2):
            if any(
                line["time"] >= self._driver.started and line["kind"] == "trial_report"
                for line in self._round.lines()[-20:]
            ):
                break
        return self._draw.expovariate(1 / self._every)

    def _strike(self) -> None:
        """Kill one thing of a kind that is there."""
        for _ in range(3 * len(KINDS)):
            if not self._bag:
                self._bag = [kind for kind in (*KINDS, *OFTEN) if kind in self._only]
                self._draw.shuffle(self._bag)
            kind = self._bag.pop()
            if (target := self._done(kind)) is not None:
                self._record(kind, target)
                return
            if self._driver.code is not None:
                return

    def _record(self, kind: str, target: str) -> None:
        kill = self._round.kills[-1]
        kill.target = target
        say(f"{self._round.name}: {len(self._round.kills)}/{self._num_kills} {kind}: {target}")

    def _done(self, kind: str) -> str | None:
        """Do it, once there is one of its kind; what was hit, None where nothing was."""
        lines = self._round.lines()
        kill = Kill(len(self._round.kills), kind, "", kills.now(), len(lines))
        self._round.kills.append(kill)
        target = self._do(kind, kill)
        if target is None:
            self._round.kills.remove(kill)
        return target

    def _do(self, kind: str, kill: Kill) -> str | None:
        if kind in DRIVER_KINDS:
            return self._end_driver(kind, kill)
        if kind == "MLflow":
            return self._site.kill_server()
        if kind == "raylet":
            return self._site.kill_raylet() if self._site.cluster is not None else None
        return self._kill_process(kind, kill)

    def _kill_process(self, kind: str, kill: Kill) -> str | None:
        deadline = time.monotonic() + WAIT_SECONDS
        pattern = kills.TITLES[kind]
        while time.monotonic() < deadline and not self._wait(0.0):
            found = self._site.find(pattern)
            if not found:
                time.sleep(0.03)
                continue
            # Not always the first moment of a call.
            time.sleep(self._draw.uniform(0.0, 0.2))
            victim = self._draw.choice(found)
            title = kills.title_of(victim)
            if re.search(pattern, title):
                kill.time, kill.num_lines = kills.now(), len(self._round.lines())
                kills.kill_all([victim])
                return f"{victim.pid} {title}"
        return None

    def _end_driver(self, kind: str, kill: Kill) -> str | None:
        if kind == "artifact" and not list(self._round.storage.glob("artifacts/*/*/manifest.json")):
            return None
        self._expected = True
        number = SIGNALS.get(kind, signal.SIGKILL)
        kill.time, kill.num_lines = kills.now(), len(self._round.lines())
        # A terminal sends SIGINT to all; `kill` and a batch system to the driver.
        self._driver.send(number, to_group=kind == "SIGINT")
        if not self._driver.wait(GRACE_SECONDS):
            message = f"{self._driver.log.name}: still there {GRACE_SECONDS:.0f} s after {kind}"
            self._round.failures.append(
                Failure("signals", None, message, tuple(self._driver.said()))
            )
        code = self._driver.code
        target = f"{self._driver.pid} driver, exit code {code} after "
        target += f"{(kills.now() - kill.time) / 1000:.1f} s"
        if kind in SIGNALS and any("Traceback" in line for line in self._driver.said(200)):
            said = tuple(self._driver.said())
            message = f"{self._driver.log.name}: {kind} shows a traceback"
            self._round.failures.append(Failure("signals", None, message, said))
        unsaved = checks.unsaved_epochs(self._round.lines(), self._round.storage)
        kill.repeated = sum(unsaved.values())
        # The epoch that is under way when the sessions are saved may still be reported, and a trial
        # of a population may have gone on from another's session, behind its own last report.
        is_checked = kind in SIGNALS and self._round.kind != "pbt"
        if is_checked and max(unsaved.values(), default=0) > 1:
            message = f"{self._driver.log.name}: {kind} lost epochs, by trial: {unsaved}"
            said = tuple(self._driver.said())
            self._round.failures.append(Failure("signals", None, message, said))
        if kind == "artifact":
            damage = kills.damage_artifact(self._round.storage, self._draw)
            assert damage is not None
            self._round.damaged.append(damage[:2])
            target += f"; {' '.join(damage)}"
        return target


def _note_progress(round_: Round) -> None:
    """How long after each kill the sweep got on."""
    lines = round_.lines()
    for kill in round_.kills:
        news = (line for line in lines if line["kind"] in checks.NEWS)
        if (after := next((line for line in news if line["time"] > kill.time), None)) is not None:
            kill.seconds = (after["time"] - kill.time) / 1000
        kill.outcome = "resumed" if kill.kind in DRIVER_KINDS else "retried"


# --- checks -----------------------------------------------------------------------------------


def check_round(round_: Round, site: Site) -> None:
    """All checks of a sweep that has ended."""
    lines = round_.lines()
    if not lines:
        round_.failures.append(Failure("trials", None, "there is no ledger"))
        return
    is_population = round_.kind == "pbt"
    stages, silent = checks.check_stages(lines, round_.damaged, fusion=not is_population)
    ends, excused = checks.check_ends(
        lines, [kill.as_dict() for kill in round_.kills], MAX_FAILURES
    )
    round_.failures += checks.check_trials(lines, round_.num_trials)
    round_.failures += [*checks.check_epochs(lines), *stages, *ends]
    if round_.kind == "asha":
        round_.failures += checks.check_asha(lines)
    for name, check in {
        "study": lambda: checks.check_study(round_.ledger, lines),
        "mlflow": lambda: checks.check_mlflow(lines, site.uri),
    }.items():
        round_.failures += _guarded(name, check)
    round_.failures += check_leftovers(round_, site)
    round_.notes += [f"excused: {line}" for line in excused]
    round_.facts |= {
        "states": {
            state: sum(trial.state == state for trial in checks.trials_of(lines).values())
            for state in ("completed", "stopped", "diverged", "failed", "running")
        },
        "repeated_epochs": checks.count_repeated(lines),
        "stages_trained_but_not_recorded": silent,
        "warnings": [line.get("message") for line in lines if line["kind"] == "warning"],
        "disk_bytes": kills.disk_bytes(round_.storage),
    }


def _guarded(name: str, check: Callable[[], list[Failure]]) -> list[Failure]:
    """A projection that cannot be read at all is a failure like any other."""
    try:
        return check()
    except Exception as error:
        return [Failure(name, None, f"{type(error).__name__}: {str(error)[:300]}")]


def check_leftovers(round_: Round, site: Site) -> list[Failure]:
    """Nothing is left: sessions, locks that are held, processes, damaged artifacts under their keys
    that this script did not damage. What killed writers leave in `tmp` is counted: the product
    removes it when it is old."""
    failures = []
    sessions = [one for one in round_.storage.glob("sessions/**/*") if one.is_file()]
    if sessions:
        names = ", ".join(str(one.relative_to(round_.storage)) for one in sessions[:4])
        failures.append(Failure("leftovers", None, f"{len(sessions)} sessions: {names}"))
    for lock in [*round_.storage.glob("locks/**/*"), *round_.storage.glob("sweeps/*/*lock")]:
        if lock.is_file() and (holder := kills.holder_of(lock)) is not None:
            failures.append(Failure("leftovers", None, f"{lock} is held: {holder}"))
    failures += [Failure("processes", None, f"left {title}") for title in site.leftovers()]
    for (stage, key), whole in kills.whole_artifacts(round_.storage).items():
        if not whole and (stage, key) not in round_.damaged:
            failures.append(Failure("leftovers", None, f"artifact {stage}/{key} is not whole"))
    round_.facts |= {
        f"{name}_left": len(list(found))
        for name, found in {
            "scratch_folders": site.folder.glob("tmp/magtkd*"),
            "temporary_files": round_.storage.glob("tmp/*"),
            "lock_files": round_.storage.glob("locks/*"),
        }.items()
    }
    return failures + check_quarantine(round_)


def check_quarantine(round_: Round) -> list[Failure]:
    """Only what this script damaged was quarantined, and the ledger has it."""
    warnings = [line.get("message", "") for line in round_.lines() if line["kind"] == "warning"]
    found = sorted(one.name for one in round_.storage.glob("damaged/*"))
    round_.facts["damaged_quarantined"] = found
    failures = []
    for name in found:
        stage, key, _ = name.split("-")
        if (stage, key) not in round_.damaged:
            failures.append(Failure("artifacts", None, f"{name}: this script did not damage it"))
        if not any(key in message for message in warnings):
            failures.append(Failure("artifacts", None, f"{name}: the ledger has no warning of it"))
    return failures


def undisturbed(round_: Round, site: Site) -> list[dict[str, Any]]:
    """The lines of the same sweep, run once more where nothing is killed."""
    again = Round(round_.name, round_.kind, round_.num_trials, round_.folder / "undisturbed")
    again.folder.mkdir()
    (again.folder / "sweep.yaml").write_bytes((round_.folder / "sweep.yaml").read_bytes())
    words = ["sweep", "sweep.yaml", "--storage", str(again.storage), "--no-tracking"]
    driver = Driver(words, again.folder / "driver.log", site.environment)
    driver.wait(3600)
    driver.end()
    if driver.code != 0:
        raise SystemExit("\n".join(["the undisturbed sweep failed:", *driver.said(30)]))
    return again.lines()


# --- the whole --------------------------------------------------------------------------------


def say(message: str) -> None:
    """Tell whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", type=Path, help="MOSI as Parquet; without it, a made-up corpus")
    parser.add_argument("--kills", type=int, default=100, help="in all rounds together")
    parser.add_argument("--trials", type=int, default=24, help="of each round")
    parser.add_argument("--rounds", type=int, default=4, help="sweeps, of different schedulers")
    parser.add_argument("--first", type=int, default=0, help="the scheme of the first round")
    parser.add_argument("--epochs", type=int, default=40, help="of fusion")
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1, help="beside the head; 0: a local Ray")
    parser.add_argument("--every", type=float, default=4.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, help="work here, and leave everything there")
    parser.add_argument(
        "--hosts",
        nargs="*",
        choices=list(chaos_hosts.FAULTS),
        help="faults of hosts and of an object store instead; all, where none is named",
    )
    parser.add_argument("--times", type=int, default=1, help="for each fault of --hosts")
    options = parser.parse_args()
    if options.hosts is not None:
        kinds = options.hosts or list(chaos_hosts.FAULTS)
        raise SystemExit(chaos_hosts.run_faults(kinds, options.times, options.out))
    result: dict[str, Any] = {"machine": common.machine(), "seed": options.seed}
    # Sockets below it have short names only.
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    rounds = run(options, folder)
    failed = publish(options, result, rounds)
    if failed:
        print(f"what happened is in {folder}; the same kinds again: --seed {options.seed}")
        raise SystemExit(1)
    if options.folder is None:
        kills.remove(folder)


def run(options: argparse.Namespace, folder: Path) -> list[Round]:
    """All rounds, each with its share of the kills and what the ones before it had left."""
    rounds: list[Round] = []
    draw = random.Random(options.seed)
    num_left = options.kills
    with Site(folder.resolve(), options.nodes, draw, cpus=1 if options.nodes else 0) as site:
        while len(rounds) < options.rounds or (num_left and len(rounds) < 4 * options.rounds):
            rest = max(options.rounds - len(rounds), 1)
            index = options.first + len(rounds)
            round_ = make_round(options, index, site.folder / f"round-{len(rounds)}")
            rounds.append(round_)
            Chaos(site, round_, -(-num_left // rest), options).run()
            num_left -= len(round_.kills)
            check_round(round_, site)
            if options.compare and index % len(SCHEMES) == 0:
                round_.failures += checks.check_same(round_.lines(), undisturbed(round_, site))
            for failure in round_.failures:
                say(f"{round_.name}: FAILED: {failure}")
            say(f"{round_.name}: {len(round_.failures)} failures, {round_.facts}")
    return rounds


def publish(options: argparse.Namespace, result: dict[str, Any], rounds: Sequence[Round]) -> bool:
    """The table, the JSON, and every failure; whether there was one."""
    every = [kill for round_ in rounds for kill in round_.kills]
    rows = []
    for kind in KINDS:
        of_kind = [kill for kill in every if kill.kind == kind]
        seconds = [kill.seconds for kill in of_kind if kill.seconds is not None]
        rows.append(
            [
                kind,
                len(of_kind),
                "resumed" if kind in DRIVER_KINDS else "retried",
                f"{statistics.median(seconds):.1f}" if seconds else "-",
                f"{max(seconds):.1f}" if seconds else "-",
                sum(kill.repeated for kill in of_kind),
            ]
        )
    failures = [failure for round_ in rounds for failure in round_.failures]
    result |= {
        "options": {name: str(value) for name, value in vars(options).items()},
        "kills": [
            kill.as_dict() | {"round": round_.name} for round_ in rounds for kill in round_.kills
        ],
        "rounds": [
            {
                "name": round_.name,
                "seconds": round(round_.seconds, 1),
                "drivers": round_.num_drivers,
                "kills": len(round_.kills),
                "damaged": round_.damaged,
                "notes": round_.notes,
                "failures": [str(failure) for failure in round_.failures],
                **round_.facts,
            }
            for round_ in rounds
        ],
    }
    columns = ["killed", "times", "what happened", "s to next event, median", "most", "repeated"]
    title = f"{len(every)} kills in {len(rounds)} sweeps, seed {options.seed}"
    common.publish(title, result, columns, rows, options.out)
    for round_ in rounds:
        for failure in round_.failures:
            print(f"FAILED: {round_.name}: {failure}")
    print(f"{len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    main()
