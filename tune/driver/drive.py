"""The driver at work: Ray Tune's loop, between the ledger, the study and the engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.tune as ray_tune
from rich.console import Console

from magtkd.pipeline import Source, make_plan
from magtkd.store.store import Store
from tune.cluster.local import driver_node
from tune.config.options import SweepOptions
from tune.config.sweep import SweepConfig, base_of, config_of
from tune.driver.recorder import Recorder
from tune.driver.trial import Trial, resumed_config, trial_resources
from tune.driver.watch import Stop, Watch, stop_signals
from tune.engine.claims import remove_free_claims
from tune.engine.engine import ENGINE_NAMESPACE, EngineActor, engine_name
from tune.ledger.file import Ledger
from tune.ledger.layout import sweep_folder
from tune.ledger.state import Event, SweepState
from tune.results.display import Display
from tune.results.trial_files import files_of
from tune.search.schedulers import make_scheduler, replay
from tune.search.searcher import OptunaSearcher, SweepStudy
from tune.tracking.follower import UPLOADS
from tune.tracking.tracker import Tracker, default_tracking_uri

__all__ = ["drive"]

# Population based training goes on from checkpoints that are a few exchanges old.
NUM_CHECKPOINTS = 5
SCRATCH = "tune"


def drive(
    sweep: SweepConfig,
    source: Source,
    options: SweepOptions,
    ledger: Ledger,
    events: list[Event],
    console: Console | None,
) -> SweepState:
    """Run what a sweep's ledger lacks, to the end or until a signal.

    Args:
        sweep: the sweep, which was checked.
        source: its table.
        options: how it is run.
        ledger: its ledger, which gets what happens.
        events: what the ledger has already.
        console: where to show it; None for stderr.

    Returns:
        its state.

    Raises:
        StorageError: the storage cannot be written any more; the sweep can be resumed.
    """
    state = SweepState()
    for event in events:
        state.apply(event)
    study, scheduler = SweepStudy(sweep, events), make_scheduler(sweep)
    to_stop = replay(scheduler, events)
    store, folder = Store(options.storage), ledger.path.parent
    _tidy(store, folder, state)
    console = console or Console(stderr=True)
    with ExitStack() as stack:
        engine = stack.enter_context(_engine(state.sweep_id, source, options))
        engine.warm_up.remote(base_of(sweep), sweep.search.max_concurrent)
        display = stack.enter_context(Display(state, study.max_trials, console))
        tracker = _start_tracker(sweep, options, ledger, display.note)
        recorder = Recorder(
            sweep, ledger, state, [study.apply, display.on_event], engine.end.remote
        )
        stop = Stop(engine, recorder, display.note)
        watch = Watch(engine, recorder, stop, folder)
        stack.enter_context(stop_signals(stop))
        interrupted = True
        try:
            for number in to_stop:
                if not _is_trained(sweep, source, store, state, number):
                    recorder.end(number, "stopped")
            unfinished = [resumed_config(state.trials[number]) for number in study.running]
            if unfinished or study.num_trials < study.max_trials:
                _fit(sweep, study, scheduler, unfinished, recorder, stop, watch, options)
            interrupted = any(trial.ended_time is None for trial in state.trials.values())
            interrupted |= study.num_trials < study.max_trials
        except KeyboardInterrupt:
            display.note("interrupted again: not waiting for what runs")
        finally:
            watch.close()
            recorder.close("interrupted" if interrupted else "finished")
            if tracker is not None and (left := tracker.close()):
                display.note(
                    f"tracking is behind by {left} events; they wait in {ledger.path}; "
                    f"later: magtkd sync {sweep.name} --storage {options.storage}"
                )
    if recorder.error is not None:
        raise recorder.error
    if not interrupted:
        store.remove_folder(f"sessions/sweeps/{state.sweep_id}")
        remove_free_claims(store)
    return state


def _tidy(store: Store, folder: Path, state: SweepState) -> None:
    """Remove what drivers that were killed left behind and nobody will ask for."""
    store.remove_left_overs()
    for name in (SCRATCH, UPLOADS):
        shutil.rmtree(folder / name, ignore_errors=True)
    sessions = f"sessions/sweeps/{state.sweep_id}"
    for name in store.list_folders(sessions):
        trial = state.trials.get(int(name)) if name.isdecimal() else None
        if trial is None or trial.ended_time is not None:
            store.remove_folder(f"{sessions}/{name}")


def _is_trained(
    sweep: SweepConfig, source: Source, store: Store, state: SweepState, number: int
) -> bool:
    """Whether a trial that looks stopped had in fact done its last epoch."""
    plan = make_plan(config_of(sweep, state.trials[number].values), source)
    return store.exists("fusion", plan.keys["fusion"])


def _fit(
    sweep: SweepConfig,
    study: SweepStudy,
    scheduler: Any,
    unfinished: list[dict[str, Any]],
    recorder: Recorder,
    stop: Stop,
    watch: Watch,
    options: SweepOptions,
) -> None:
    def on_suggest(number: int, values: dict[str, Any]) -> None:
        recorder.record("trial_suggested", trial=number, values=values)

    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(
            Trial,
            sweep=sweep.model_dump(mode="json"),
            engine=engine_name(recorder.state.sweep_id),
            max_failures=options.max_failures,
        ),
        ray_tune.PlacementGroupFactory([trial_resources()]),
    )
    # Tune insists on a folder of its own; everything that is worth keeping is in the ledger.
    with _scratch_folder(sweep_folder(options.storage, sweep.name)) as scratch:
        ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=OptunaSearcher(study, on_suggest, unfinished),
                scheduler=scheduler,
                num_samples=study.max_trials - study.num_trials + len(unfinished),
                max_concurrent_trials=sweep.search.max_concurrent,
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


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    scratch = folder / SCRATCH
    scratch.mkdir(exist_ok=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _engine(sweep_id: str, source: Source, options: SweepOptions) -> Iterator[Any]:
    engine = EngineActor.options(
        name=engine_name(sweep_id),
        namespace=ENGINE_NAMESPACE,
        scheduling_strategy=driver_node(),
    ).remote(
        Store(options.storage).address,
        source,
        sweep_id,
        options.reuse,
        options.max_failures,
        options.trainer,
    )
    try:
        yield engine
    finally:
        ray.kill(engine)  # and with it its workers, which it owns


def _start_tracker(
    sweep: SweepConfig, options: SweepOptions, ledger: Ledger, say: Callable[[str], None]
) -> Tracker | None:
    if options.tracking_uri == "":
        return None
    return Tracker(
        ledger.path,
        options.tracking_uri or default_tracking_uri(ledger.path.parents[2]),
        artifacts_of=files_of(sweep, Store(options.storage)),
        say=say,
    )
