"""The driver: checks a sweep, then runs it on Ray Tune until it ends or is interrupted."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune as ray_tune
from rich.console import Console

from magtkd.artifacts import Store
from magtkd.config import dump_yaml, nearest, validate
from magtkd.data import Corpus, read_corpus
from magtkd.errors import SweepError
from magtkd.pipeline import Source, make_plan, source_of
from tune.cluster import check_resources, driver_node, ray_cluster
from tune.display import Display
from tune.engine import ENGINE_NAMESPACE, EngineActor, engine_name
from tune.ledger import Ledger, check_unused, open_ledger, read_events
from tune.recorder import Recorder
from tune.schedule import make_scheduler, replay
from tune.search import OptunaSearcher, SweepStudy
from tune.state import SweepState
from tune.sweep_config import SweepConfig, base_of, check_sweep, config_of
from tune.sweep_folder import sweep_folder
from tune.tracking import Tracker, default_tracking_uri
from tune.trial import Trial, resumed_config, trial_resources
from tune.trial_files import files_of
from tune.watch import Stop, Watch, stop_signals

__all__ = ["Preview", "SweepOptions", "preview_sweep", "resume_sweep", "run_sweep"]

MAX_PREVIEWED = 10_000
# Population based training goes on from checkpoints that are a few exchanges old.
NUM_CHECKPOINTS = 5
SCRATCH = "tune"
VERSIONS = ("magtkd", "ray", "torch", "optuna", "mlflow")


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run, as apart from what it searches.

    `storage` is where artifacts and ledgers go; `tracking_uri` MLflow's address, None for the
    default and an empty string for no tracking; `reuse` shares stages between trials;
    `max_failures` is how often the work of a process that died is done again; `stages` is the
    module that trains.
    """

    storage: str = "magtkd-results"
    tracking_uri: str | None = None
    reuse: bool = True
    max_failures: int = 3
    stages: str = "magtkd.stages"


# --- checks -----------------------------------------------------------------------------------


def _check_labels(sweep: SweepConfig, corpus: Corpus) -> None:
    for objective in sweep.objective:
        label = objective.metric.removeprefix("dev/f1/")
        if label != objective.metric and label not in corpus.labels:
            raise SweepError(
                f"objective.metric: {objective.metric!r}: {corpus.source} has no label {label!r}"
                f"{nearest(label, corpus.labels)}; it has {', '.join(corpus.labels)}"
            )


@dataclass(frozen=True)
class Preview:
    """What a sweep would do: `num_configurations` is None where it is not finite; `stages` has,
    per stage, the number of distinct keys and of those that exist already."""

    num_configurations: int | None
    stages: dict[str, tuple[int, int]]


def preview_sweep(sweep: SweepConfig, options: SweepOptions) -> Preview:
    """Check a sweep against its data and the cluster without running anything of it.

    Raises:
        InputError: anything that is wrong, in one line.
    """
    corpus = read_corpus(sweep.data)
    _check_labels(sweep, corpus)
    source, store = source_of(corpus), Store(options.storage)
    num_points = sweep.search_space.num_points(base_of(sweep))
    keys: dict[str, set[str]] = {}
    for values in _previewed_points(sweep, num_points):
        for stage, key in make_plan(config_of(sweep, values), source).keys.items():
            keys.setdefault(stage, set()).add(key)
    with ray_cluster():
        check_resources(sweep.resources, ray.cluster_resources())
    return Preview(
        num_points,
        {
            stage: (len(found), sum(store.exists(stage, key) for key in found))
            for stage, found in keys.items()
        },
    )


def _previewed_points(sweep: SweepConfig, num_points: int | None) -> Iterator[dict[str, Any]]:
    """All points of a space that is finite and not huge; else the base alone."""
    if num_points is None or num_points > MAX_PREVIEWED:
        yield {}
    else:
        yield from sweep.search_space.points(base_of(sweep))


# --- running ----------------------------------------------------------------------------------


def run_sweep(
    sweep: SweepConfig, options: SweepOptions, console: Console | None = None
) -> SweepState:
    """Run a new sweep to its end.

    Returns:
        its state; `closed` is `finished`, or `interrupted` where a signal ended it.

    Raises:
        InputError: anything that is wrong with the sweep, before anything is written.
    """
    folder = sweep_folder(options.storage, sweep.name)
    check_unused(folder)
    check_sweep(sweep)
    corpus = read_corpus(sweep.data)
    _check_labels(sweep, corpus)
    source = source_of(corpus)
    make_plan(base_of(sweep), source)
    Store(options.storage).check_writable()
    with ray_cluster():
        check_resources(sweep.resources, ray.cluster_resources())
        with open_ledger(folder) as ledger:
            opened = ledger.append(
                "sweep_opened",
                name=sweep.name,
                config=sweep.model_dump(mode="json"),
                fingerprint=source.fingerprint,
                tracked=options.tracking_uri != "",
                versions={name: importlib.metadata.version(name) for name in VERSIONS},
            )
            (folder / "sweep.yaml").write_text(dump_yaml(sweep), encoding="utf-8")
            return _drive(sweep, source, options, ledger, [opened], console)


def resume_sweep(name: str, options: SweepOptions, console: Console | None = None) -> SweepState:
    """Go on with a sweep from its ledger: trials without an end first, then new ones.

    Raises:
        SweepError: there is no such sweep, another process runs it, or its data have changed.
    """
    folder = sweep_folder(options.storage, name)
    with open_ledger(folder, resume=True) as ledger:
        events = list(read_events(ledger.path))
        sweep = validate(SweepConfig, events[0]["config"], str(ledger.path))
        source = source_of(read_corpus(sweep.data))
        if source.fingerprint != events[0]["fingerprint"]:
            raise SweepError(
                f"sweep {name!r}: {sweep.data.path or 'the synthetic corpus'} has changed since "
                "it was opened; put the table back, or start a sweep under another name"
            )
        Store(options.storage).check_writable()
        with ray_cluster():
            check_resources(sweep.resources, ray.cluster_resources())
            events.append(ledger.append("sweep_resumed"))
            return _drive(sweep, source, options, ledger, events, console)


def _drive(
    sweep: SweepConfig,
    source: Source,
    options: SweepOptions,
    ledger: Ledger,
    events: list[dict[str, Any]],
    console: Console | None,
) -> SweepState:
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
    return state


def _tidy(store: Store, folder: Path, state: SweepState) -> None:
    """Remove what drivers that were killed left behind and nobody will ask for."""
    store.remove_left_overs()
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
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
        options.stages,
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
