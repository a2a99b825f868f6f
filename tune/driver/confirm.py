"""Confirm a sweep: its best configurations again, on seeds that the sweep did not have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from rich.console import Console

from magtkd.config import Config, validate
from magtkd.data import NO_LABEL, prepare, read_corpus
from magtkd.errors import ArtifactError, RayLostError, SweepError, and_more, shorten
from magtkd.pipeline import Source
from magtkd.scoring import Predictions, split_predictions
from magtkd.store import Store
from tune.config import SweepConfig, SweepOptions, changed_sweep
from tune.driver.preview import check_tracking
from tune.driver.sweep import (
    StudyOf,
    complain_of,
    open_and_drive,
    resume_and_drive,
    unchanged_source,
)
from tune.ledger import (
    Event,
    RaceEntry,
    RaceSetup,
    SweepLayout,
    SweepState,
    TrialStatus,
    Vary,
    find_confirmations,
    open_ledger,
    read_events,
    read_sweep,
)
from tune.results import best, driver_of
from tune.search import Race, fresh_seeds
from tune.space import Candidate

__all__ = ["ConfirmRequest", "confirm_sweep"]

TOP, NUM_SEEDS, CONFIDENCE = 5, 10, 0.95
SEED = "seed"
UPSTREAM = ("data", "teacher", "audio", "video")


@dataclass(frozen=True, kw_only=True)
class ConfirmRequest:
    """What is asked of a confirmation; None is what it has already, or the default of a new one."""

    top: int | None = None
    """How many of the best configurations (5)."""
    num_seeds: int | None = None
    """The most seeds of each (10)."""
    confidence: float | None = None
    """With which one must be worse to get no more (0.95)."""
    vary: Vary | None = None
    """Which stages get fresh seeds (all)."""
    again: bool = False
    """Begin another confirmation, though there is one."""

    def check(self) -> None:
        """Check each value by itself.

        Raises:
            SweepError: one that no confirmation can have.
        """
        if self.top is not None and self.top < 1:
            raise SweepError(f"--top {self.top}: give 1 or more")
        if self.num_seeds is not None and not 2 <= self.num_seeds <= 1000:
            raise SweepError(
                f"--seeds {self.num_seeds}: a mean and its deviation take 2 or more; give 2 to 1000"
            )
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise SweepError(
                f"--confidence {self.confidence:g}: give a number between 0 and 1, such as 0.95"
            )


def confirm_sweep(
    name: str,
    request: ConfirmRequest,
    options: SweepOptions,
    console: Console | None = None,
    on_lost: Callable[[RayLostError], int] = complain_of,
    overrides: Sequence[str] = (),
) -> SweepState:
    """Race a sweep's best configurations on fresh seeds, or continue that; a confirmation that is
    over stays as it is.

    The seeds are the smallest that no trial of the sweep had, so that another confirmation has the
    same ones: what both train is trained once, and none is a second draw. Which conversations are
    dev does not change with them.

    Args:
        name: the sweep's.
        request: what is confirmed how.
        options: how it is run.
        console: where to show it; None for stderr.
        on_lost: as for `run_sweep`.
        overrides: `key=value` of `search.max_concurrent` and `resources`.

    Returns:
        the state of the confirmation.

    Raises:
        NoneCompletedError: the sweep has no completed trial.
        SweepError: there is no such sweep, it is running, its trials cannot be compared, or the
            confirmation was begun with other values.
        ResumableError: as for `run_sweep`.
    """
    request.check()
    for one in overrides:
        if not one.startswith(("search.max_concurrent=", "resources.", "resources=")):
            raise SweepError(
                f"{shorten(one)}: a confirmation trains what the sweep has trained; "
                "search.max_concurrent and resources may be others"
            )
    layout = SweepLayout.of(options.storage, name)
    driver = driver_of(layout)
    state = read_sweep(layout)
    if state.table is not None:
        raise SweepError(
            f"sweep {name!r}: has the trainings of table {state.table!r}, with its seeds already; "
            "confirm a sweep"
        )
    if driver is not None:
        raise SweepError(
            f"sweep {name!r}: {driver} is running it; wait for its end, or interrupt it, and "
            "confirm what it has by then"
        )
    console = console or Console(stderr=True)
    if not state.is_tracked and options.tracking_uri is None:
        options = replace(options, tracking_uri="")
    found = find_confirmations(layout, state.sweep_id)
    if found and not request.again:
        return _continue(found[-1], request, options, console, on_lost, overrides)
    source = unchanged_source(state)
    place = layout.confirmation(len(found) + 1)
    sweep, race = _new(state, source, request, place.part)
    sweep, _ = changed_sweep(sweep, overrides)
    _check_dev(sweep, race, source)
    check_tracking(place, options)
    store = Store(options.storage)
    store.check_writable()
    _note(console, _headline(race))
    return open_and_drive(
        place,
        sweep,
        source,
        options,
        _race(race, store),
        race=race,
        console=console,
        on_lost=on_lost,
    )


def _continue(
    layout: SweepLayout,
    request: ConfirmRequest,
    options: SweepOptions,
    console: Console,
    on_lost: Callable[[RayLostError], int],
    overrides: Sequence[str],
) -> SweepState:
    state = read_sweep(layout)
    race = state.race
    assert race is not None, "which find_confirmations has checked"
    _check_same(request, race)
    if state.is_confirmed:
        return state
    with open_ledger(layout, resume=True) as ledger:
        events: list[Event] = list(read_events(ledger.path))
        store = Store(options.storage)
        sweep, changes = changed_sweep(state.sweep, overrides)
        source = unchanged_source(state)
        store.check_writable()
        _note(console, _headline(race))
        return resume_and_drive(
            ledger,
            events,
            state,
            sweep,
            source,
            options,
            _race(race, store),
            changes=changes,
            console=console,
            on_lost=on_lost,
        )


def _check_same(request: ConfirmRequest, race: RaceSetup) -> None:
    """Refuse to continue a confirmation with other values than it has.

    Raises:
        SweepError: one differs.
    """
    pairs = (
        ("--top", request.top, len(race.entries)),
        ("--seeds", request.num_seeds, len(race.seeds)),
        ("--confidence", request.confidence, race.confidence),
        ("--vary", request.vary, race.vary),
    )
    for option, wanted, has in pairs:
        if wanted is not None and wanted != has:
            raise SweepError(
                f"{option} {wanted}: there is a confirmation with {has}; leave it out, or add "
                "--again for another one, which reuses what this one has trained"
            )


# --- what is confirmed ------------------------------------------------------------------------


def _new(
    state: SweepState, source: Source, request: ConfirmRequest, name: str
) -> tuple[SweepConfig, RaceSetup]:
    """A new confirmation of a sweep: the configuration that its trials vary, and the race."""
    sweep = state.sweep
    _check_objective(sweep)
    vary: Vary = request.vary or "all"
    used = {sweep.seed, *(sweep.seed_of(stage) for stage in (*UPSTREAM, "fusion"))}
    used |= {_seed_of(trial.candidate, sweep.base) for trial in state.trials.values()}
    seeds = fresh_seeds(used, request.num_seeds or NUM_SEEDS)
    held = UPSTREAM if vary == "fusion" else UPSTREAM[:1]
    tree = sweep.model_dump(mode="json") | {
        "seeds": {stage: sweep.seed_of(stage) for stage in held},
        "scheduler": {"kind": "fifo"},
    }
    base = validate(SweepConfig, tree, f"sweep {state.name!r}").base
    entries = _entries(state, base, source, seeds[0], request.top)
    tree["search"] = {
        "sampler": "random",
        "num_trials": len(entries) * len(seeds),
        "max_concurrent": sweep.search.max_concurrent,
        "start": [],
    }
    race = RaceSetup(
        name=name,
        sweep_id=state.sweep_id,
        entries=tuple(entries),
        seeds=seeds,
        confidence=request.confidence or CONFIDENCE,
        vary=vary,
        num_completed=state.count()[TrialStatus.COMPLETED],
    )
    return validate(SweepConfig, tree, f"sweep {state.name!r}"), race


def _seed_of(candidate: Candidate, base: Config) -> int:
    seed = candidate.values.get(SEED, base.seed) if candidate.seed is None else candidate.seed
    return int(seed) if isinstance(seed, int) else base.seed


def _entries(
    state: SweepState, base: Config, source: Source, seed: int, top: int | None
) -> list[RaceEntry]:
    """The best configurations of a sweep: those of its best trials that train different things.

    Raises:
        NoneCompletedError: no trial has completed.
        SweepError: there are fewer than were asked for.
    """
    found: dict[str, RaceEntry] = {}
    for row in best(state, len(state.trials)):
        candidate = state.trials[row.trial].candidate
        values = {name: value for name, value in candidate.values.items() if name != SEED}
        entry = RaceEntry(
            trial=row.trial,
            values=values,
            changes=candidate.changes,
            score=float(row.objectives[state.objectives[0].metric] or 0.0),
        )
        found.setdefault(entry.candidate(seed).plan(base, source).fusion_key, entry)
        if len(found) == (top or TOP):
            break
    if top is not None and len(found) < top:
        raise SweepError(
            f"--top {top}: sweep {state.name!r} has {len(found)} completed configurations that "
            f"differ; give --top {len(found)} or less, or leave it out"
        )
    return list(found.values())


def _check_objective(sweep: SweepConfig) -> None:
    """Refuse what has no ranking, and what predictions do not give."""
    metrics = [one.metric for one in sweep.objective]
    if len(metrics) > 1:
        raise SweepError(
            f"sweep {sweep.name!r}: has {len(metrics)} objectives, {and_more(metrics, 3)}, and a "
            "race has one; export each of its best: "
            f"magtkd best {sweep.name} --trial N --export FILE"
        )
    if metrics[0] == "dev/loss":
        raise SweepError(
            f"sweep {sweep.name!r}: its objective is dev/loss, which the weights of the losses "
            "change; configurations are compared by what they predict: run a sweep for another "
            "objective, such as dev/weighted_f1"
        )


def _check_dev(sweep: SweepConfig, race: RaceSetup, source: Source) -> None:
    """Refuse what could not be compared on dev, before anything is trained."""
    configs = [entry.candidate(race.seeds[0]).config(sweep.base) for entry in race.entries]
    fractions = {config.data.dev_fraction for config in configs}
    if not source.has_dev and len(fractions) > 1:
        raise SweepError(
            f"sweep {sweep.name!r}: data.dev_fraction differs between its best trials, which are "
            "scored on different conversations; confirm one with --top 1, or leave it out of the "
            "space"
        )
    config = configs[0]
    data = prepare(read_corpus(config.data), config.data, config.seed_of("data"))
    is_dev = (data["split"].to_numpy() == "dev") & (data["label"].to_numpy() != NO_LABEL)
    number = len(set(data["dialogue_id"].to_numpy()[is_dev]))
    if number < 2:
        raise SweepError(
            f"sweep {sweep.name!r}: dev has {number} conversation with labels; nothing can be said "
            "of others with fewer than 2"
        )


def _headline(race: RaceSetup) -> str:
    trials = and_more((str(entry.trial) for entry in race.entries), 10)
    stages = "all stages" if race.vary == "all" else "fusion"
    return (
        f"{race.name}: trial{'s' if len(race.entries) > 1 else ''} {trials} of the sweep, with up "
        f"to {len(race.seeds)} fresh seeds of {stages} each: {and_more(map(str, race.seeds), 10)}"
    )


def _note(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _race(race: RaceSetup, store: Store) -> StudyOf:
    @functools.lru_cache(maxsize=2)
    def data_of(key: str) -> pa.Table:
        return store.read("data", key).table

    def predict(keys: Mapping[str, str]) -> Predictions:
        try:
            fusion = store.read("fusion", keys["fusion"], weights=False).table
            return split_predictions(data_of(keys["data"]), fusion, "dev")
        except ArtifactError as error:
            way_out = "confirm with --again, which trains what is missing"
            raise ArtifactError(error.reason, way_out) from None

    def make(sweep: SweepConfig, source: Source, events: Sequence[Event]) -> Race:
        return Race(race, sweep.objective[0].select, predict, events)

    return make
