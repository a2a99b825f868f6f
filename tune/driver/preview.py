"""What a sweep would do: a dry run, without anything of it being run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from magtkd.config import label_of, names_of
from magtkd.data import Corpus, prepare, read_corpus
from magtkd.errors import DataError, InputError, SweepError, shorten
from magtkd.pipeline import (
    STAGES,
    Source,
    given_settings,
    source_of,
    unread_lines,
    unread_names,
)
from magtkd.scoring import check_label
from magtkd.store import Store
from tune.cluster import live_nodes, shape_of
from tune.config import SweepConfig, SweepOptions, check_new_sweep
from tune.driver.earlier import learn_from, lines_on
from tune.driver.join import sweep_cluster
from tune.ledger import SweepLayout, sweeps_on
from tune.results import Seconds, StageSeconds
from tune.space import Candidate, Choice
from tune.tracking import check_store

__all__ = ["Preview", "check_labels", "check_tracking", "preview_sweep", "unread_in_sweep"]

MAX_PREVIEWED = 10_000
MAX_PROBED = 300
MAX_SWEEPS = 20


@dataclass(frozen=True)
class StageCount:
    """How many keys a stage has over the space: `distinct`, None where a continuous range makes
    them unbounded, of which `existing` are in the store already."""

    distinct: int | None
    existing: int


@dataclass(frozen=True)
class Preview:
    """What a sweep would do.

    `num_configurations` is None where a continuous range makes them unbounded, and `num_trials`
    where only a budget of hours ends the sweep. Where `is_whole` is false there are too many to
    count, and more of each than `stages` has. `hints` are lines on ranges that keep trials from
    sharing stages; `notes` are lines on the table, on settings that have no effect, and on
    resources that were chosen."""

    num_configurations: int | None
    num_trials: int | None
    stages: dict[str, StageCount]
    is_whole: bool
    hints: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: dict[str, Seconds]
    """What one training of a stage is expected to take, where sweeps on the same data in this
    storage have recorded it."""
    workers: dict[str, int]
    """How many trainings of a stage the cluster has room for at a time."""

    def to_train(self, stage: str) -> int | None:
        """How often a stage is trained at most; None where that has no limit."""
        count, most = self.stages[stage], self.num_trials
        if count.distinct is None or not self.is_whole:
            return most
        new = count.distinct - count.existing
        return new if most is None else min(new, most)

    @property
    def total(self) -> Seconds | None:
        """Seconds of training at most, of the stages of which something is known; None where these
        have no limit."""
        return self._sum(lambda stage, number: number)

    @property
    def passed(self) -> Seconds | None:
        """The same of the wall clock, where workers have something to do all the time."""
        return self._sum(lambda stage, number: number / min(number, self.workers.get(stage, 1)))

    def _sum(self, factor: Callable[[str, int], float]) -> Seconds | None:
        total = Seconds(0.0, 0.0, 0.0)
        for stage, seconds in self.seconds.items():
            number = self.to_train(stage)
            if number is None:
                return None
            if number:
                total = total.plus(seconds.times(factor(stage, number)))
        return total


def check_labels(sweep: SweepConfig, corpus: Corpus) -> None:
    """Check that dev has the labels whose F1 is optimised or chooses an epoch.

    Raises:
        SweepError: one is missing.
    """
    wanted = {
        f"objective.metric: {shorten(one.metric)!r}": one.label
        for one in sweep.objective
        if one.label is not None
    }
    for stage in ("teacher", "audio", "video", "fusion"):
        name = f"{stage}.select"
        searched = [
            str(value)
            for own, entry in sweep.search_space.entries
            if isinstance(entry, Choice) and name in (own, *entry.tie)
            for value in entry.values
        ]
        for select in (getattr(sweep, stage).select, *searched):
            if (label := label_of(select)) is not None:
                wanted.setdefault(f"{name}: {shorten(select)!r}", label)
    if not wanted:
        return
    table = prepare(
        corpus, sweep.data, sweep.seed_of("data")
    )  # as the trials see it, dev carved out included
    for place, label in wanted.items():
        try:
            check_label(place, label, table)
        except DataError as error:
            raise SweepError(str(error)) from None


def check_tracking(layout: SweepLayout, options: SweepOptions) -> None:
    """Refuse a tracking store to which nothing could be sent; one that is away is no reason.

    Raises:
        TrackingError: its address is not one, or its database has another MLflow's schema.
    """
    if options.tracking_uri != "":
        uri = options.tracking_uri or layout.tracking_uri
        check_store(uri, migrating=options.migrate_tracking)


def preview_sweep(sweep: SweepConfig, options: SweepOptions) -> Preview:
    """Check a sweep against its data and the cluster without running anything of it.

    Raises:
        InputError: anything that is wrong, in one line.
    """
    # A preview writes nothing, and migrates nothing.
    layout = SweepLayout.of(options.storage, sweep.name)
    check_new_sweep(sweep)
    check_tracking(layout, replace(options, migrate_tracking=False))
    corpus = read_corpus(sweep.data)
    check_labels(sweep, corpus)
    source, store = source_of(corpus), Store(options.storage)
    number, most = sweep.search_space.num_points(sweep.base), sweep.search.most_trials
    points = sweep.sampler.points(sweep.problem)
    keys, is_whole = _distinct_keys(sweep, source, 0)
    # A stage whose keys follow a continuous range has others at another of its values.
    others = keys if number is not None else _distinct_keys(sweep, source, 1)[0]
    with sweep_cluster(sweep, source, options, None) as joined:
        chosen, workers = joined.chosen, _workers(joined.sweep)
    stages = {
        stage: StageCount(
            len(found) if found == others.get(stage) else None,
            sum(store.exists(stage, key) for key in found),
        )
        for stage, found in keys.items()
    }
    lines = (
        *corpus.warnings,
        *unread_in_sweep(sweep, source),
        *sweep.outside_space,
        *lines_on(learn_from(sweep, layout, source.fingerprint)),
        *([chosen] if chosen else ()),
    )
    known = StageSeconds(sweeps_on(layout, source.fingerprint, MAX_SWEEPS))
    expected = {stage: known.expected(stage, sweep.base) for stage in stages}
    return Preview(
        num_configurations=number,
        num_trials=most if points is None else len(points),
        stages=stages,
        is_whole=is_whole,
        hints=unshared_ranges(sweep),
        notes=lines,
        seconds={stage: one for stage, one in expected.items() if one is not None},
        workers=workers,
    )


def _workers(sweep: SweepConfig) -> dict[str, int]:
    """How many workers of each stage there may be at a time, on the nodes that are alive."""
    nodes, limits = live_nodes(), sweep.resources
    most = min(limits.max_workers or sweep.search.max_concurrent, sweep.search.max_concurrent)
    shapes = {stage: shape_of(getattr(limits, stage)) for stage in limits.STAGES}
    return {
        stage: max(1, min(most, sum(node.room_for(shape) for node in nodes)))
        for stage, shape in shapes.items()
    }


def unshared_ranges(sweep: SweepConfig) -> tuple[str, ...]:
    """Lines on names of stages before fusion whose values no two trials have in common."""
    if sweep.sampler.shares_stages:
        return ()
    lines = []
    for name, entry in sweep.search_space.entries:
        early = [stage for stage in STAGES[:-1] if stage in sweep.search_space.sections[name]]
        if entry.points() is None and early:
            lines.append(
                f"{name}: a range of real numbers, so that each trial trains "
                f"{' and '.join(early)} and what follows anew; trials share these with choices "
                "or a step"
            )
    return tuple(lines)


def _distinct_keys(
    sweep: SweepConfig, source: Source, probe: int
) -> tuple[dict[str, set[str]], bool]:
    """The keys of each stage over the space, and whether that was all of it."""
    points = sweep.search_space.probed_points(sweep.base, probe)
    keys: dict[str, set[str]] = {}
    for values in itertools.islice(points, MAX_PREVIEWED):
        for stage, key in Candidate(values=values).plan(sweep.base, source).keys.items():
            keys.setdefault(stage, set()).add(key)
    return keys, next(points, None) is None


def unread_in_sweep(sweep: SweepConfig, source: Source) -> tuple[str, ...]:
    """The settings of a sweep that have no effect, as lines for people: searched names, and values
    of the configuration, that no trial's stages read.

    Args:
        sweep: the sweep, which was checked.
        source: its table.
    """
    seen: set[str] = set()
    reasons: dict[str, str] = {}
    searched = {tied for name, entry in sweep.search_space.entries for tied in (name, *entry.tie)}
    given = searched | given_settings(sweep.base)
    for values in sweep.search_space.probe(sweep.base, MAX_PROBED):
        # A hint and no check: where values are not legal together, that shows nothing here.
        with contextlib.suppress(InputError):
            config = Candidate(values=values).config(sweep.base)
            unread = unread_names(config, source)
            # A name whose condition fails is not there, and not without effect.
            there = (given - searched) | values.keys()
            seen |= {name for name in there if name not in unread}
            reasons |= {name: unread[name] for name in there if name in unread}
    names = [name for name in names_of() if name in reasons and name not in seen]
    others = sweep.unread_of_scheduler | sweep.unread_of_sampler
    return unread_lines({name: reasons[name] for name in names} | others)
