"""The driver at work: Ray Tune's loop, between the ledger, the study and the engine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.tune as ray_tune
from ray.air._internal import usage
from ray.exceptions import RayError
from ray.tune import TuneError
from rich.console import Console

from magtkd.errors import MagtkdError, RayLostError, first_line
from magtkd.pipeline import Source
from magtkd.store import Store, report_faults_to
from tune.config import SweepConfig, SweepOptions
from tune.driver.join import Joined
from tune.driver.known import list_store
from tune.driver.lifeline import lifeline
from tune.driver.limits import Limits
from tune.driver.recorder import Recorder
from tune.driver.room import room_for_trials
from tune.driver.watch import Stop, Watch, stop_signals
from tune.engine import EngineHandle, remove_free_claims, start_engine
from tune.ledger import (
    Event,
    Ledger,
    LiveFile,
    SweepEnd,
    SweepLayout,
    SweepState,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    Warned,
    fold,
    sessions_folder,
)
from tune.results import Display, files_of
from tune.search import Proposer, SweepSearcher, replay
from tune.space import Assignment, Candidate
from tune.tracking import Tracker
from tune.trial import Trial

__all__ = ["drive"]

# Population based training continues from checkpoints that are a few exchanges old.
NUM_CHECKPOINTS = 5
BUFFER_LENGTH = "TUNE_RESULT_BUFFER_LENGTH"


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A sweep at work: what its parts have in common."""

    sweep: SweepConfig
    source: Source
    options: SweepOptions
    layout: SweepLayout
    store: Store
    state: SweepState
    study: Proposer
    limits: Limits
    scheduler: Any

    @property
    def unfinished(self) -> list[Assignment]:
        """The trials that were suggested and have not ended."""
        trials = (self.state.trials[number] for number in self.study.running)
        return [
            Assignment(
                number=trial.number,
                candidate=trial.candidate,
                epoch=max(trial.epochs_seen, default=0),
            )
            for trial in trials
        ]

    @property
    def has_more(self) -> bool:
        """Whether there are trials that were not suggested yet."""
        return self.study.has_more

    @property
    def is_done(self) -> bool:
        """Whether all trials have ended, and there are no more."""
        return not self.state.running and not self.has_more


def drive(
    joined: Joined,
    source: Source,
    options: SweepOptions,
    *,
    study: Proposer,
    ledger: Ledger,
    events: Sequence[Event],
    console: Console | None,
    on_lost: Callable[[RayLostError], int],
) -> SweepState:
    """Run what a sweep's ledger lacks, to the end or until a signal.

    Args:
        joined: the sweep, which was checked, as it runs on its cluster.
        source: its table.
        options: how it is run.
        study: what decides which trials there are, with the ledger's events so far.
        ledger: its ledger, which gets what happens.
        events: what the ledger has already.
        console: where to show it; None for stderr.
        on_lost: called when Ray is gone, and the ledger is closed; gives the exit code with which
            this process then ends.

    Returns:
        its state.

    Raises:
        ResumableError: the storage or Ray went away, or another driver took the sweep over.
    """
    sweep = joined.sweep
    scheduler = sweep.scheduler.build(sweep.problem)
    work = _Work(
        sweep=sweep,
        source=source,
        options=options,
        layout=ledger.layout,
        store=Store(options.storage),
        state=fold(events),
        study=study,
        limits=Limits(sweep, events),
        scheduler=scheduler,
    )
    to_stop = replay(scheduler, events)
    _tidy(work)
    console = console or Console(stderr=True)
    with ExitStack() as stack:
        engine = stack.enter_context(
            start_engine(
                sweep.base,
                source,
                work.state.sweep_id,
                options,
                token_name=joined.token_name,
                needs=joined.needs,
            )
        )
        engine.warm_up.remote(sweep.search.max_concurrent)
        display = stack.enter_context(
            Display(work.state, work.study.max_trials, console, lambda: work.limits.seconds_left)
        )
        stack.enter_context(report_faults_to(display.note))
        tracker = _start_tracker(work, display.note)
        recorder = Recorder(
            sweep=sweep,
            ledger=ledger,
            state=work.state,
            listeners=[
                work.study.apply,
                work.limits.apply,
                display.on_event,
                _at_the_end(work, tracker),
            ],
            on_end=engine.end.remote,
        )
        stop, watch, allow = _watch(work, engine, recorder, display)
        stack.enter_context(stop_signals(stop))

        def end_without_ray(error: RayLostError) -> int:
            recorder.end_now(error)
            display.close()
            return on_lost(error)

        stack.enter_context(lifeline(end_without_ray))
        end, why = SweepEnd.INTERRUPTED, None
        try:
            for number in to_stop:
                if not _is_trained(work, number):
                    recorder.end(number, TrialStatus.STOPPED)
            _record_due(work, recorder)
            if recorder.error is None and not work.is_done and not stop.is_reached():
                _fit(work, recorder, stop, watch, allow)
            if recorder.error is None:
                end, why = _end_of(work, stop)
        except KeyboardInterrupt:
            display.note("interrupted again: not waiting for what runs")
        except (RayError, TuneError, OSError) as error:
            # Tune also fails on its own folder, which goes with a storage that goes away.
            recorder.check()
            if recorder.error is None and not isinstance(error, RayError):
                raise
            recorder.error = recorder.error or RayLostError(
                f"Ray: {first_line(error)}", "continue when there is a cluster again"
            )
        finally:
            watch.close()
            recorder.close(end, why)
            if tracker is not None and (left := tracker.close()):
                later = shlex.join(["magtkd", "sync", sweep.name, "--storage", options.storage])
                display.note(
                    f"tracking is behind by {left} events, which are kept in {ledger.path}; "
                    f"later: {later}"
                )
    if recorder.error is not None:
        raise recorder.error
    if end == SweepEnd.FINISHED:
        if work.is_done:
            work.store.remove_folder(sessions_folder(work.state.sweep_id))
        remove_free_claims(work.store)
    return work.state


def _record_due(work: _Work, recorder: Recorder) -> None:
    """Record what the study decides, now that a trial has ended. Where it cannot, the work ends:
    Tune would make a failure of the trial's own of an exception."""
    if recorder.error is not None:
        return
    try:
        due = work.study.due()
    except MagtkdError as error:
        recorder.error = error
        return
    if due is not None:
        recorder.record(due)


def _decisions(work: _Work, recorder: Recorder) -> Callable[[Event], None]:
    """A listener that does so at once; it comes after those that the study learns from."""

    def on_event(event: Event) -> None:
        if isinstance(event, TrialEnded):
            _record_due(work, recorder)

    return on_event


def _watch(
    work: _Work, engine: EngineHandle, recorder: Recorder, display: Display
) -> tuple[Stop, Watch, Callable[[], None]]:
    """What looks after the work while trials run, and a call that tells the engine which stages may
    begin."""

    recorder.listen(_decisions(work, recorder))

    def allow() -> None:
        if (allowance := work.limits.allowance(work.state, work.source)) is not None:
            engine.allow.remote(allowance)

    stop = Stop(
        engine, recorder, lambda: work.limits.reached(recorder.seconds_running), display.note
    )
    live_file = LiveFile(work.layout.live_file)
    watch = Watch(
        engine, recorder, work.limits, allow, stop, live_file, display.note, display.on_live
    )
    return stop, watch, allow


def _end_of(work: _Work, stop: Stop) -> tuple[SweepEnd, str | None]:
    """How the work has ended, and which limit ended it before the last trial did."""
    if work.is_done:
        return SweepEnd.FINISHED, work.limits.reached_by_trials(work.study.num_trials)
    return (SweepEnd.INTERRUPTED if stop.why is None else SweepEnd.FINISHED), stop.why


def _tidy(work: _Work) -> None:
    """Remove what drivers that were killed left behind and nothing needs."""
    work.store.remove_left_overs()
    for folder in (work.layout.scratch, work.layout.uploads):
        shutil.rmtree(folder, ignore_errors=True)
    sessions = sessions_folder(work.state.sweep_id)
    for name in work.store.list_folders(sessions):
        trial = work.state.trials.get(int(name)) if name.isdecimal() else None
        if trial is None or trial.has_ended:
            work.store.remove_folder(f"{sessions}/{name}")


def _is_trained(work: _Work, number: int) -> bool:
    """Whether a trial that looks stopped had in fact done its last epoch."""
    plan = work.state.trials[number].candidate.plan(work.sweep.base, work.source)
    return work.store.exists("fusion", plan.fusion_key)


def _fit(
    work: _Work, recorder: Recorder, stop: Stop, watch: Watch, allow: Callable[[], None]
) -> None:
    def on_suggest(number: int, candidate: Candidate) -> None:
        values, seed, changes = candidate.values, candidate.seed, candidate.changes
        recorder.record(TrialSuggested(trial=number, values=values, seed=seed, changes=changes))
        allow()  # before the trial asks for its stages

    sweep, options, unfinished = work.sweep, work.options, work.unfinished
    if work.study.reads_store and work.has_more and options.reuse:
        recorder.record(list_store(sweep, work.layout, work.store, work.state.fingerprint))
    stops = sweep.scheduler.decides_after(sweep.problem)
    room = room_for_trials(sweep, shares_files=not work.layout.remote)
    if room.warning and room.warning not in work.state.warnings:
        recorder.record(Warned(message=room.warning))
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(
            Trial,
            sweep_id=work.state.sweep_id,
            metric=sweep.objective[0].metric,
            stops=stops,
            shares_sessions=sweep.scheduler.shares_sessions,
            max_failures=options.max_failures,
        ),
        ray_tune.PlacementGroupFactory([dict(room.resources)]),
    )
    _count_no_callbacks()
    in_batches = len(stops) < sweep.problem.max_epochs
    # Tune insists on a folder of its own; everything that is worth keeping is in the ledger.
    with _scratch_folder(work.layout.scratch) as scratch, _batches(in_batches):
        ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=SweepSearcher(work.study, on_suggest, unfinished, work.limits.used),
                scheduler=work.scheduler,
                num_samples=_num_samples(work.study, len(unfinished)),
                max_concurrent_trials=room.count,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial-{trial.trial_id}",
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray_tune.RunConfig(
                name=sweep.name,
                storage_path=str(scratch),
                callbacks=[recorder, watch],
                stop=stop,
                verbose=0,
                checkpoint_config=ray_tune.CheckpointConfig(
                    checkpoint_at_end=False, num_to_keep=NUM_CHECKPOINTS
                ),
                failure_config=ray_tune.FailureConfig(max_failures=options.max_failures),
            ),
        ).fit()


def _num_samples(study: Proposer, num_unfinished: int) -> int:
    """The trials that Tune will ask for; -1 where only a limit ends the sweep."""
    if study.max_trials is None:
        return -1
    return max(0, study.max_trials - study.num_trials) + num_unfinished


def _count_no_callbacks() -> None:
    """Keep Ray from importing MLflow and the like, for seconds and before the first trial, to count
    which of its own callbacks are in use; that statistic is off anyway, but has no option."""
    usage.tag_callbacks = lambda callbacks: False


@contextmanager
def _batches(are_allowed: bool) -> Iterator[None]:
    """Whether Tune takes several reports of a trial at a time; how many is up to the trial."""
    before = os.environ.pop(BUFFER_LENGTH, None)
    if are_allowed:
        os.environ[BUFFER_LENGTH] = str(sys.maxsize)
    try:
        yield
    finally:
        os.environ.pop(BUFFER_LENGTH, None)
        if before is not None:
            os.environ[BUFFER_LENGTH] = before


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _at_the_end(work: _Work, tracker: Tracker | None) -> Callable[[Event], None]:
    """A listener that lets tracking catch up while Ray Tune ends, and not only then."""

    def on_event(event: Event) -> None:
        is_last = isinstance(event, TrialEnded) and work.is_done
        if is_last and tracker is not None:
            tracker.hurry()

    return on_event


def _start_tracker(work: _Work, note: Callable[[str], None]) -> Tracker | None:
    if work.options.tracking_uri == "":
        return None
    return Tracker(
        work.layout,
        work.options.tracking_uri or work.layout.tracking_uri,
        artifacts_of=files_of(work.sweep, work.store),
        note=note,
    )
