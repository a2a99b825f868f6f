"""Start a sweep, or resume one."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rich.console import Console

from magtkd.config import dump_yaml
from magtkd.data import read_corpus
from magtkd.errors import RayLostError, ResumableError, SweepError, shorten
from magtkd.pipeline import Source, make_plan, source_of
from magtkd.store import Files, Store
from tune.config import (
    SweepConfig,
    SweepOptions,
    changed_sweep,
    check_new_sweep,
    differences,
    may_change,
)
from tune.driver.drive import drive
from tune.driver.earlier import learn_from, lines_on
from tune.driver.join import sweep_cluster
from tune.driver.limits import Limits
from tune.driver.preview import check_labels, check_tracking, unread_in_sweep
from tune.ledger import (
    FORMAT,
    Event,
    Ledger,
    RaceSetup,
    SweepChanged,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepResumed,
    SweepState,
    TrialsLearned,
    TrialStatus,
    Warned,
    check_unused,
    find_opened,
    fold,
    open_ledger,
    read_events,
    read_sweep,
)
from tune.redact import redact
from tune.search import Proposer, SweepStudy
from tune.space import Candidate

__all__ = [
    "StudyOf",
    "complain_of",
    "is_to_resume",
    "open_and_drive",
    "resume_and_drive",
    "resume_sweep",
    "run_sweep",
    "unchanged_source",
]

StudyOf = Callable[[SweepConfig, Source, Sequence[Event]], Proposer]
"""Makes what decides which trials there are, from the sweep as it runs on its cluster, its table
and the ledger's events."""
VERSIONS = ("magtkd", "ray", "torch", "optuna", "mlflow")


def complain_of(error: RayLostError) -> int:
    """What is done when Ray is gone: say so; gives the exit code."""
    print(error, file=sys.stderr)
    return ResumableError.exit_code


def is_to_resume(sweep: SweepConfig, options: SweepOptions) -> bool:
    """Whether a sweep was begun, so that a job that is repeated resumes it and starts it else.

    Args:
        sweep: as a file has it.
        options: where its storage is.

    Raises:
        SweepError: a sweep of this name was begun with other settings.
        StorageLostError: an object store does not answer or refuses.
    """
    layout = SweepLayout.of(options.storage, sweep.name)
    if (opened := find_opened(layout)) is None:
        return False
    wanted = sweep.model_dump(mode="json")
    begun = fold([opened]).sweep.model_dump(mode="json")
    if (found := list(differences(begun, wanted))) and any(
        differences(read_sweep(layout).sweep.model_dump(mode="json"), wanted)
    ):
        name, old, new = found[0]
        command = f"--resume {sweep.name}"
        if all(may_change(one) for one, _, _ in found):
            command += f" {name}={shorten(str(new))}"
        raise SweepError(
            f"{name}: {shorten(str(new))}, but sweep {sweep.name!r} was begun with "
            f"{shorten(str(old))}; continue that with {command}, or give this one another name"
        )
    return True


def run_sweep(
    sweep: SweepConfig,
    options: SweepOptions,
    console: Console | None = None,
    on_lost: Callable[[RayLostError], int] = complain_of,
) -> SweepState:
    """Run a new sweep to its end.

    Args:
        sweep: the sweep.
        options: how it is run.
        console: where to show it; None for stderr.
        on_lost: called in another thread when Ray is gone; gives the exit code with which this
            process then ends.

    Returns:
        its state; `closed` is `finished`, or `interrupted` where a signal ended it.

    Raises:
        InputError: anything that is wrong with the sweep, before anything is written.
        ResumableError: the storage or Ray went away; where Ray goes away while trials run, the
            process ends with exit code 75 instead.
    """
    layout = SweepLayout.of(options.storage, sweep.name)
    if layout.remote:
        Store(options.storage).check_writable()  # before anything waits for it
    check_unused(layout)
    check_tracking(layout, options)
    check_new_sweep(sweep)
    corpus = read_corpus(sweep.data)
    check_labels(sweep, corpus)
    source = source_of(corpus)
    make_plan(sweep.base, source)
    unread = unread_in_sweep(sweep, source)
    learned = learn_from(sweep, layout, source.fingerprint)
    Store(options.storage).check_writable()
    notes = [*corpus.warnings, *unread, *sweep.outside_space]
    return open_and_drive(
        layout,
        sweep,
        source,
        options,
        _study,
        learned=learned,
        notes=notes,
        console=console,
        on_lost=on_lost,
    )


def _study(sweep: SweepConfig, source: Source, events: Sequence[Event]) -> Proposer:
    return SweepStudy(
        sweep, events, lambda values: Candidate(values=values).plan(sweep.base, source)
    )


def open_and_drive(
    layout: SweepLayout,
    sweep: SweepConfig,
    source: Source,
    options: SweepOptions,
    study: StudyOf,
    *,
    race: RaceSetup | None = None,
    table: str | None = None,
    learned: Sequence[TrialsLearned] = (),
    notes: Sequence[str] = (),
    console: Console | None,
    on_lost: Callable[[RayLostError], int],
) -> SweepState:
    """Run what was checked, with a ledger of its own, to its end.

    Args:
        layout: where its ledger is.
        sweep: what is run.
        source: its table.
        options: how it is run.
        study: makes what decides which trials there are.
        race: what is confirmed, where that is what is run.
        table: the name of the table whose trainings these are, where that is what is run.
        learned: earlier sweeps from which it starts.
        notes: lines for people, for the ledger.
        console: where to show it; None for stderr.
        on_lost: as for `run_sweep`.
    """
    with (
        sweep_cluster(sweep, source, options, console) as joined,
        open_ledger(layout) as ledger,
    ):
        opened = SweepOpened(
            name=sweep.name,
            config=sweep.model_dump(mode="json"),
            fingerprint=source.fingerprint,
            tracked=options.tracking_uri != "",
            versions={name: importlib.metadata.version(name) for name in VERSIONS},
            format=FORMAT,
            race=race,
            table=table,
        )
        # First what people read: with its first event the sweep is begun, and its folder whole.
        _write_for_people(layout, dump_yaml(sweep))
        events: list[Event] = [ledger.append(opened)]
        events += [ledger.append(one) for one in learned]
        lines = [*notes, *lines_on(learned), *joined.warnings]
        lines += [joined.chosen] if joined.chosen else []
        events += [ledger.append(Warned(message=line)) for line in lines]
        return drive(
            joined,
            source,
            options,
            study=study(joined.sweep, source, events),
            ledger=ledger,
            events=events,
            console=console,
            on_lost=on_lost,
        )


def _write_for_people(layout: SweepLayout, text: str) -> None:
    """The resolved sweep; nothing reads it, so a disk that is full is reported by the ledger."""
    with contextlib.suppress(OSError):
        layout.sweep_file.write_text(text, encoding="utf-8")
    if layout.remote:
        Files(layout.remote).write_file(f"{layout.remote_folder}/sweep.yaml", text.encode())


def resume_sweep(
    name: str,
    options: SweepOptions,
    console: Console | None = None,
    on_lost: Callable[[RayLostError], int] = complain_of,
    overrides: Sequence[str] = (),
) -> SweepState:
    """Resume a sweep from its ledger: trials that have not ended first, then new ones. One that is
    finished stays as it is, and nothing is started for it, unless it is given more.

    A sweep that was begun without tracking continues without, unless an address is given. `console`
    and `on_lost` are as for `run_sweep`.

    Args:
        name: the sweep's.
        options: how it is run from here on.
        console: where to show it.
        on_lost: called when Ray is gone.
        overrides: `key=value` for settings that may change, see `changed_sweep`.

    Raises:
        SweepError: there is no such sweep, another process runs it, its data have changed, or a
            setting cannot change.
        ResumableError: as for `run_sweep`.
    """
    layout = SweepLayout.of(options.storage, name)
    with open_ledger(layout, resume=True) as ledger:
        events = list(read_events(ledger.path))
        state = fold(events)
        if state.table is not None:
            raise SweepError(
                f"sweep {name!r}: has the trainings of table {state.table!r}; continue it with "
                "magtkd table and its file"
            )
        sweep, changes = changed_sweep(state.sweep, overrides)
        if changes:
            _check_not_reached(
                sweep, [*events, SweepChanged(time=events[-1].time, changes=changes)]
            )
        elif state.closed == SweepEnd.FINISHED:
            return state
        store = Store(options.storage)
        source = unchanged_source(state)
        store.check_writable()
        _check_artifacts(state, store)
        # Its first driver may have died before it had written them all.
        learned = [] if state.trials else learn_from(sweep, layout, state.fingerprint, events)
        return resume_and_drive(
            ledger,
            events,
            state,
            sweep,
            source,
            options,
            _study,
            changes=changes,
            learned=learned,
            console=console,
            on_lost=on_lost,
        )


def unchanged_source(state: SweepState) -> Source:
    """The table of a sweep.

    Raises:
        SweepError: it is not the one that the sweep was begun with.
    """
    data = state.sweep.data
    source = source_of(read_corpus(data))
    if source.fingerprint != state.fingerprint:
        raise SweepError(
            f"sweep {state.name!r}: {data.path or 'the synthetic corpus'} has changed since "
            "it was opened; put the table back, or start a sweep under another name"
        )
    return source


def resume_and_drive(
    ledger: Ledger,
    events: list[Event],
    state: SweepState,
    sweep: SweepConfig,
    source: Source,
    options: SweepOptions,
    study: StudyOf,
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    learned: Sequence[TrialsLearned] = (),
    console: Console | None,
    on_lost: Callable[[RayLostError], int],
) -> SweepState:
    """Continue what a ledger has, to its end.

    Args:
        ledger: the ledger.
        events: what it has.
        state: what these amount to.
        sweep: what is run, with the changes.
        source: its table.
        options: how it is run from here on.
        study: makes what decides which trials there are.
        changes: settings that are others from here on, by dotted name.
        learned: earlier sweeps from which it starts, and which the ledger does not have.
        console: where to show it; None for stderr.
        on_lost: as for `run_sweep`.
    """
    if not state.is_tracked and options.tracking_uri is None:
        options = replace(options, tracking_uri="")
    check_tracking(ledger.layout, options)
    with sweep_cluster(sweep, source, options, console) as joined:
        events.append(ledger.append(SweepResumed(format=FORMAT)))
        if changes:
            events.append(ledger.append(SweepChanged(changes=dict(changes))))
            _write_for_people(ledger.layout, dump_yaml(sweep))
        if state.format < 2:
            events.append(ledger.append(Warned(message=_older(state))))
        events += [ledger.append(one) for one in learned]
        events += [
            ledger.append(Warned(message=line))
            for line in (*lines_on(learned), *joined.warnings, joined.chosen)
            if line and line not in state.warnings
        ]
        return drive(
            joined,
            source,
            options,
            study=study(joined.sweep, source, events),
            ledger=ledger,
            events=events,
            console=console,
            on_lost=on_lost,
        )


def _check_not_reached(sweep: SweepConfig, events: Sequence[Event]) -> None:
    """Refuse to continue a sweep that would end at once.

    Raises:
        SweepError: a limit is reached that was not raised.
    """
    if (reached := Limits(sweep, events).reached()) is not None:
        setting, _, why = reached.partition(": ")
        raise SweepError(
            f"{setting}: {why}, so that sweep {sweep.name!r} would end at once; give it more, or "
            f"{setting}=null"
        )


def _check_artifacts(state: SweepState, store: Store) -> None:
    """Refuse a sweep whose folder was copied without the storage that has its artifacts: trials
    would count as completed whose models are elsewhere.

    Raises:
        SweepError: none of what its completed trials trained or reused is there.
    """
    keys = {
        (stage, record.key)
        for trial in state.trials.values()
        if trial.state == TrialStatus.COMPLETED
        for stage, record in trial.stages.items()
    }
    if keys and not any(store.exists(stage, key) for stage, key in sorted(keys)):
        raise SweepError(
            f"sweep {state.name!r}: storage {redact(store.address)} has no artifact of its "
            "completed trials; move or copy a storage as a whole, or give this sweep's --storage"
        )


def _older(state: SweepState) -> str:
    return (
        f"the ledger was begun in format {state.format}, whose keys were made of settings that a "
        f"stage does not read; trials that have not ended ({len(state.running)}) train what "
        "their new keys lack"
    )
