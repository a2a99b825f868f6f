"""A paper's table: train what is missing of its rows, reveal test for them, and compute it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from magtkd.config import Config, load_config, nearest, validate, with_values
from magtkd.data import Corpus, read_corpus
from magtkd.errors import (
    ArtifactError,
    ConfigError,
    InputError,
    RayLostError,
    StorageLostError,
    SweepError,
    TrackingError,
    and_more,
    shorten,
)
from magtkd.metrics import Scores, classification_metrics
from magtkd.pipeline import Plan, Source, source_of
from magtkd.scoring import Predictions, split_predictions
from magtkd.store import Store
from tune.config import (
    SweepConfig,
    SweepOptions,
    TableRow,
    TableSpec,
    baseline_values,
    differences,
    with_changes,
)
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
    SweepLayout,
    SweepState,
    TestRevealed,
    TrialState,
    TrialStatus,
    find_confirmations,
    find_opened,
    open_ledger,
    read_events,
    read_sweep,
)
from tune.results import PaperTable, Trained, best, driver_of, find_confirmation, make_paper_table
from tune.search import Trainings
from tune.space import Candidate, value_name
from tune.stats import conversation_counts
from tune.tracking import sync

__all__ = ["build_table"]

NOT_COMPARED = ("name", "seed", "resources")
"""What of a configuration is no part of a row: what it is called, and how much it may use."""
OBJECTIVE = {"metric": "dev/weighted_f1", "mode": "max"}
"""What MLflow and `magtkd status` show of trainings that nothing is chosen by."""
WAY_OUT = "give the table another name, which trains what is missing"


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The trainings of one data set."""

    data: str
    layout: SweepLayout
    sweep: SweepConfig
    source: Source
    candidates: dict[tuple[str, int], Candidate]
    """By row and seed."""
    warnings: tuple[str, ...] = ()
    """Lines on rows that are the same."""

    @property
    def rows(self) -> list[str]:
        """The rows that have this data set."""
        return list(dict.fromkeys(row for row, _ in self.candidates))


def build_table(
    spec: TableSpec,
    options: SweepOptions,
    console: Console | None = None,
    on_lost: Callable[[RayLostError], int] = complain_of,
) -> PaperTable | None:
    """Train what a table lacks, reveal test for its rows, and compute its cells.

    Each data set has a ledger of its own, which is a sweep's called `TABLE-DATA`, with each row and
    seed as a trial; what it or any other sweep has trained is reused. Which conversations become
    dev does not change with the seeds.

    Args:
        spec: the table.
        options: how it is run.
        console: where to show it; None for stderr.
        on_lost: as for `run_sweep`.

    Returns:
        the table; None where the work was interrupted, and the same call continues it.

    Raises:
        NoneCompletedError: a sweep without a completed trial.
        InputError: anything else that is wrong with a row or a data set, before anything is
            trained.
        ArtifactError: an artifact of a training is missing or damaged; nothing is revealed then.
        ResumableError: as for `run_sweep`.
    """
    console = console or Console(stderr=True)
    rows = Rows(spec, options.storage)
    groups = [_group(spec, data, rows, options) for data in spec.data]
    for group in groups:
        check_tracking(group.layout, options)
        for line in group.warnings:
            _note(console, f"{group.data}: {line}")
    store = Store(options.storage)
    store.check_writable()
    for group in groups:
        if not _train(group, spec, options, console, on_lost):
            return None
    states = {group.data: read_sweep(group.layout) for group in groups}
    trained, reveals, failed = dict[tuple[str, str], Trained](), [], []
    for group in groups:
        for row in group.rows:
            trials = _trials(group, states[group.data], row)
            if problem := _problem(trials):
                failed.append(f"{row}, {group.data}: {problem}; it has no figures.")
                continue
            one, scores = _read(group, row, trials, store)
            trained[row, group.data] = one
            reveals.append((group, row, trials, scores))
    _check_same(trained)
    for group in groups:
        found = [one[1:] for one in reveals if one[0] is group]
        if _record(group, found) and states[group.data].is_tracked:
            _send_to_mlflow(group.layout, options, console)
    notes = [*failed, *rows.origins, *_revealed_lines(groups, rows)]
    return make_paper_table(spec, trained, notes, is_whole=not failed)


# --- rows as configurations -------------------------------------------------------------------


class Rows:
    """The configurations of a table's rows, and where they are from.

    Args:
        spec: the table.
        storage: where the sweeps are.
    """

    def __init__(self, spec: TableSpec, storage: str) -> None:
        self._spec, self._storage = spec, storage
        self._of_sweep: dict[str, tuple[Config, str]] = {}
        self.sweeps: dict[str, SweepLayout] = {}
        """Those that rows name."""

    @property
    def origins(self) -> list[str]:
        """Which trials the rows of sweeps are, as sentences."""
        return [origin for _, origin in self._of_sweep.values()]

    def config(self, row: TableRow, data: str) -> Config | None:
        """The configuration of a row on a data set, its seed aside; None where it has none.

        Raises:
            InputError: it has none that could be trained.
        """
        place = f"row {shorten(row.name)!r}"
        if row.baseline is not None:
            base = self.config(self._spec.row(self._spec.base_of(row)), data)
            if base is None:
                return None
            try:
                values = baseline_values(row.baseline, base.fusion.model)
            except ValueError as error:
                raise SweepError(f"{place}: {row.baseline}: {error}") from None
        else:
            given = row.sweep if row.sweep is not None else row.config
            own = given.get(data) if isinstance(given, dict) else given
            if own is None:
                return None
            try:
                base = self._sweep(own) if row.sweep is not None else load_config(own)
            except SweepError as error:
                raise type(error)(f"{place}: {error}") from None
            values = _data_values(self._spec.data[data])
        return with_values(base, values | row.set, source=place)

    def _sweep(self, name: str) -> Config:
        if name in self._of_sweep:
            return self._of_sweep[name][0]
        layout = SweepLayout.of(self._storage, name)
        state = read_sweep(layout)
        if state.table is not None:
            raise SweepError(f"sweep {name!r}: is a table's; name one that has searched")
        if (driver := driver_of(layout)) is not None:
            raise SweepError(
                f"sweep {name!r}: {driver} is running it; wait for its end, or interrupt it"
            )
        if len(state.objectives) > 1:
            raise SweepError(
                f"sweep {name!r}: has {len(state.objectives)} objectives, of which none is best; "
                f"export one with magtkd best {name} --trial N --export FILE, and give `config`"
            )
        confirmed = find_confirmation(layout, state)
        if confirmed is not None:
            found = confirmed.trials[0].candidate.config(confirmed.state.sweep.base)
            origin = f"trial {confirmed.chosen} of sweep {name}, chosen by its confirmation."
        else:
            number = best(state)[0].trial
            found = state.trials[number].candidate.config(state.sweep.base)
            origin = f"trial {number} of sweep {name}, its best on dev; it was not confirmed."
        self.sweeps[name] = layout
        self._of_sweep[name] = found, origin
        return found


def _data_values(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a data set, which has its own table, whatever the configuration has."""
    values = {f"data.{name}": one for name, one in section.items()}
    if section.get("path") is not None:
        values.setdefault("data.synthetic", None)
    elif section.get("synthetic") is not None:
        values.setdefault("data.path", None)
    return values


def _group(spec: TableSpec, data: str, rows: Rows, options: SweepOptions) -> _Group:
    """Check all rows of a data set, and plan their trainings.

    Raises:
        InputError: what is wrong.
    """
    found = {row.name: rows.config(row, data) for row in spec.rows if row.published is None}
    configs = {name: _with_fixed_dev(one, name) for name, one in found.items() if one is not None}
    if spec.reference not in configs:
        raise SweepError(
            f"table {spec.name!r}: data {data}: the reference {shorten(spec.reference)!r} has "
            f"nothing for it; give its configuration for {data}, or leave the data set out"
        )
    source, labels = _source(spec, data, configs)
    for metric in spec.metrics:
        label = metric.removeprefix("f1/")
        if label != metric and label not in labels:
            raise SweepError(
                f"metrics: {shorten(metric)!r}: {data} has no label {shorten(label)!r}"
                f"{nearest(label, labels)}; it has {shorten(', '.join(labels))}"
            )
    layout = SweepLayout.of(options.storage, f"{spec.name}-{data}")
    base = configs[spec.reference]
    if find_opened(layout) is not None:
        state = read_sweep(layout)
        if state.table != spec.name:
            raise SweepError(
                f"sweep {layout.name!r}: exists already, and is not of table {spec.name!r}; give "
                "the table another name"
            )
        unchanged_source(state)
        if state.fingerprint != source.fingerprint:
            raise SweepError(
                f"data {data}: is another table than {layout.name!r} was begun with; put it back, "
                "or give this table another name"
            )
        base = state.sweep.base
    candidates = {}
    for seed in spec.seeds:
        for name, config in configs.items():
            candidates[name, seed] = _candidate(name, _on(base.data.path, config), base, seed)
    plans = {}
    for name in configs:
        try:
            plans[name] = candidates[name, spec.seeds[0]].plan(base, source)
        except InputError as error:
            raise type(error)(f"row {shorten(name)!r}, {data}: {error}") from None
    resources = configs[spec.reference].resources
    number = len({one.name for one in candidates.values()})
    sweep = _sweep_of(spec, layout.name, base.model_copy(update={"resources": resources}), number)
    return _Group(
        data=data,
        layout=layout,
        sweep=sweep,
        source=source,
        candidates=candidates,
        warnings=tuple(_alike(plans)),
    )


def _on(path: str | None, config: Config) -> Config:
    """The configuration on the same table at another place, where a ledger has that."""
    if path is None or config.data.path is None:
        return config
    return with_values(config, {"data.path": path})


def _alike(plans: Mapping[str, Plan]) -> Iterator[str]:
    """A line for each row that trains what one before it does."""
    first: dict[str, str] = {}
    for name, plan in plans.items():
        same = first.setdefault(plan.fusion_key, name)
        if same != name:
            yield (
                f"row {shorten(name)!r}: trains the same as row {shorten(same)!r}, since what "
                "differs has no effect"
            )


def _with_fixed_dev(config: Config, row: str) -> Config:
    """The configuration with the same dev for all seeds."""
    if config.seeds.fusion is not None:
        raise SweepError(
            f"row {shorten(row)!r}: seeds.fusion is {config.seeds.fusion}, so that all seeds train "
            "the same; set it to null"
        )
    return with_values(config, {"seeds.data": config.seed_of("data")})


def _source(
    spec: TableSpec, data: str, configs: Mapping[str, Config]
) -> tuple[Source, tuple[str, ...]]:
    """The one table of all rows, and its labels.

    Raises:
        SweepError: rows read different tables, or there is no labelled test split.
    """
    corpora: dict[str, Corpus] = {}
    for name, config in configs.items():
        key = config.data.model_dump_json()
        corpus = corpora.get(key) or read_corpus(config.data)
        corpora[key] = corpus
        if len({one.fingerprint for one in corpora.values()}) > 1:
            raise SweepError(
                f"row {shorten(name)!r}, {data}: reads another table than the rows before it; give "
                f"the path in data.{data}"
            )
    corpus = next(iter(corpora.values()))
    is_test = pc.equal(corpus.table["split"], "test")
    if not pc.any(pc.and_(is_test, pc.is_valid(corpus.table["label"]))).as_py():
        raise SweepError(
            f"table {spec.name!r}: data {data}: {shorten(corpus.source)} has no test split with "
            "labels, on which rows could be compared; give a table that has one"
        )
    return source_of(corpus), corpus.labels


def _candidate(row: str, config: Config, base: Config, seed: int) -> Candidate:
    """The row as values that differ from the ledger's configuration.

    Raises:
        SweepError: it differs in what a trial's values cannot say.
    """
    changes = config.fusion.changes
    plain = with_values(config, {"fusion.changes": {}}) if changes else config
    pairs = differences(_compared(base), _compared(plain))
    values = {name: value_name(new) for name, _, new in pairs}
    candidate = Candidate(values=values, changes=changes, seed=seed)
    try:
        is_same = _compared(candidate.config(base)) == _compared(config)
    except ConfigError:
        is_same = False
    if not is_same:
        shown = and_more(values, 3)
        raise SweepError(
            f"row {shorten(row)!r}: differs from the table's first configuration in more than "
            f"values: {shown}; put it into a table of its own"
        )
    return candidate


def _compared(config: Config) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    return {name: one for name, one in tree.items() if name not in NOT_COMPARED}


def _sweep_of(spec: TableSpec, name: str, base: Config, number: int) -> SweepConfig:
    tree = base.model_dump(mode="json") | {
        "name": name,
        "objective": OBJECTIVE,
        "scheduler": {"kind": "fifo"},
        "search": {
            "sampler": "random",
            "num_trials": number,
            "max_concurrent": spec.max_concurrent,
            "start": [],
        },
    }
    return validate(SweepConfig, tree, f"table {spec.name!r}")


# --- training ---------------------------------------------------------------------------------


def _train(
    group: _Group,
    spec: TableSpec,
    options: SweepOptions,
    console: Console,
    on_lost: Callable[[RayLostError], int],
) -> bool:
    """Train what a data set's ledger lacks; whether all of it has ended then."""
    wanted = list({one.name: one for one in group.candidates.values()}.values())
    names = {one.name for one in wanted}
    layout = group.layout

    def study(sweep: SweepConfig, source: Source, events: Sequence[Event]) -> Trainings:
        return Trainings(wanted, events)

    if find_opened(layout) is None:
        number = len(wanted)
        rows = f"{len(group.rows)} rows with {len(spec.seeds)} seeds"
        _note(console, f"{group.data}: {rows}, {number} trainings")
        state = open_and_drive(
            layout,
            group.sweep,
            group.source,
            options,
            study,
            table=spec.name,
            console=console,
            on_lost=on_lost,
        )
    else:
        state = read_sweep(layout)
        if not _lacks(state, names):
            return True
        state = _resume(group, study, options, console, on_lost)
    return not _lacks(state, names)


def _lacks(state: SweepState, names: set[str]) -> set[str]:
    return names - {one.suggested.name for one in state.trials.values() if one.has_ended}


def _resume(
    group: _Group,
    study: StudyOf,
    options: SweepOptions,
    console: Console,
    on_lost: Callable[[RayLostError], int],
) -> SweepState:
    with open_ledger(group.layout, resume=True) as ledger:
        events: list[Event] = list(read_events(ledger.path))
        state = read_sweep(group.layout)
        old, new = state.sweep, group.sweep
        known = {one.suggested.name for one in state.trials.values()}
        number = len(known | {one.name for one in group.candidates.values()})
        wanted = {
            "search.num_trials": (old.search.num_trials, number),
            "search.max_concurrent": (old.search.max_concurrent, new.search.max_concurrent),
            "resources": tuple(one.resources.model_dump(mode="json") for one in (old, new)),
        }
        changes = {name: after for name, (before, after) in wanted.items() if before != after}
        tree = with_changes(old.model_dump(mode="json"), changes)
        sweep = validate(SweepConfig, tree, f"sweep {state.name!r}")
        return resume_and_drive(
            ledger,
            events,
            state,
            sweep,
            group.source,
            options,
            study,
            changes=changes,
            console=console,
            on_lost=on_lost,
        )


# --- test -------------------------------------------------------------------------------------


def _trials(group: _Group, state: SweepState, row: str) -> list[TrialState]:
    """The trials of a row, one a seed, in the order of the seeds."""
    by_name = {trial.suggested.name: trial for trial in state.trials.values()}
    return [by_name[one.name] for (name, _), one in group.candidates.items() if name == row]


def _problem(trials: Sequence[TrialState]) -> str:
    bad = [trial for trial in trials if trial.state != TrialStatus.COMPLETED]
    if not bad:
        return ""
    first = bad[0]
    why = f": {shorten(first.message)}" if first.message else ""
    return (
        f"{len(bad)} of {len(trials)} seeds did not complete, seed {first.suggested.seed} "
        f"{first.state}{why}"
    )


def _read(
    group: _Group, row: str, trials: Sequence[TrialState], store: Store
) -> tuple[Trained, list[Scores]]:
    """What the trainings of a row predict of test.

    Raises:
        ArtifactError: an artifact is missing or damaged.
    """

    @functools.lru_cache(maxsize=1)
    def data_of(key: str) -> pa.Table:
        return store.read("data", key).table

    found: list[Predictions] = []
    for trial in trials:
        try:
            fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
            found.append(split_predictions(data_of(trial.stages["data"].key), fusion, "test"))
        except ArtifactError as error:
            raise ArtifactError(f"row {shorten(row)!r}: {error.reason}", WAY_OUT) from None
    labels = found[0].labels
    counts = [
        conversation_counts(one.label, one.prediction, one.conversation, len(labels))
        for one in found
    ]
    scores = [
        Scores.of_split(classification_metrics(one.label, one.prediction, one.labels))
        for one in found
    ]
    seeds = [trial.suggested.seed for trial in trials]
    trained = Trained(
        labels=labels,
        seeds=tuple(seed for seed in seeds if seed is not None),
        counts=np.stack(counts),
        keys=tuple(
            {stage: record.key for stage, record in trial.stages.items()} for trial in trials
        ),
    )
    return trained, scores


def _check_same(trained: Mapping[tuple[str, str], Trained]) -> None:
    """Check that all rows of a data set predict the same utterances.

    Raises:
        SweepError: one does not.
    """
    first: dict[str, Trained] = {}
    for (row, data), one in trained.items():
        other = first.setdefault(data, one)
        supports = [each.counts.sum(axis=-1) for each in (one, other)]
        if one.labels != other.labels or not np.array_equal(*supports):
            raise SweepError(
                f"row {shorten(row)!r}, {data}: predicts other utterances of test than the rows "
                f"before it; {WAY_OUT}"
            )


def _record(
    group: _Group, found: Sequence[tuple[str, Sequence[TrialState], Sequence[Scores]]]
) -> bool:
    """Record in the ledger that test of these trials was seen, for which row; once for each.
    Whether there was any that was not."""
    known = {
        (event.trial, event.row)
        for event in read_events(group.layout.ledger)
        if isinstance(event, TestRevealed)
    }
    new = [
        TestRevealed(trial=trial.number, test=test, row=row)
        for row, trials, scores in found
        for trial, test in zip(trials, scores, strict=True)
        if (trial.number, row) not in known
    ]
    if new:
        with open_ledger(group.layout, resume=True) as ledger:
            for event in new:
                ledger.append(event)
    return bool(new)


def _send_to_mlflow(layout: SweepLayout, options: SweepOptions, console: Console) -> None:
    if options.tracking_uri == "":
        return
    try:
        sync(layout, options.tracking_uri or layout.tracking_uri)
    except (StorageLostError, TrackingError) as error:
        _note(console, f"not sent to MLflow: {error}")


def _note(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _reveals(layout: SweepLayout) -> Iterator[TestRevealed]:
    if layout.ledger.is_file():
        found = read_events(layout.ledger)
        yield from (event for event in found if isinstance(event, TestRevealed))


def _revealed_lines(groups: Sequence[_Group], rows: Rows) -> Iterator[str]:
    """How many configurations were tried on dev, and how many were revealed on test, and when."""
    tried = {}
    places = [group.layout for group in groups]
    for name, layout in rows.sweeps.items():
        state = read_sweep(layout)
        tried[name] = len({Candidate(values=one.values).name for one in state.trials.values()})
        places += [layout, *find_confirmations(layout, state.sweep_id)]
    if tried:
        each = and_more((f"{number} in sweep {name}" for name, number in tried.items()), 10)
        yield f"Tried on dev before: {sum(tried.values())} configurations ({each})."
    events = [(layout, event) for layout in places for event in _reveals(layout)]
    if not events:
        return
    models = {(layout.folder, event.trial) for layout, event in events}
    names = {(layout.folder, event.row or event.trial) for layout, event in events}
    times = [event.time for _, event in events]
    first, last = (_date(one) for one in (min(times), max(times)))
    when = f"on {first}" if first == last else f"from {first} to {last}"
    yield (
        f"Revealed on test so far: {len(names)} configurations in {len(models)} trainings, {when} "
        "(UTC)."
    )


def _date(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(milliseconds / 1000))
