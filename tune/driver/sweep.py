"""A sweep from outside: checked, previewed, run anew or resumed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
from dataclasses import dataclass, replace

import ray
from rich.console import Console

from magtkd.config import dump_yaml, nearest, validate
from magtkd.data import Corpus, read_corpus
from magtkd.errors import InputError, SweepError
from magtkd.pipeline import Source, make_plan, source_of
from magtkd.store.store import Store
from tune.cluster.local import check_resources, ray_cluster
from tune.config.options import SweepOptions
from tune.config.sweep import SweepConfig, base_of, check_sweep, config_of
from tune.driver.drive import drive
from tune.ledger.file import check_unused, open_ledger, read_events
from tune.ledger.layout import sweep_folder
from tune.ledger.state import SweepState

__all__ = ["Preview", "SweepOptions", "preview_sweep", "resume_sweep", "run_sweep"]

MAX_PREVIEWED = 10_000
VERSIONS = ("magtkd", "ray", "torch", "optuna", "mlflow")


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
    per stage, the number of distinct keys, None where it is not finite, and how many of them exist
    already. Where `is_whole` is false there are too many to count: there are more of each.
    `idle` are the names of the space that change no stage."""

    num_configurations: int | None
    stages: dict[str, tuple[int | None, int]]
    is_whole: bool
    idle: tuple[str, ...]


def preview_sweep(sweep: SweepConfig, options: SweepOptions) -> Preview:
    """Check a sweep against its data and the cluster without running anything of it.

    Raises:
        InputError: anything that is wrong, in one line.
    """
    corpus = read_corpus(sweep.data)
    _check_labels(sweep, corpus)
    source, store = source_of(corpus), Store(options.storage)
    number = sweep.search_space.num_points(base_of(sweep))
    keys, is_whole = _distinct_keys(sweep, source, 0)
    # A stage whose keys follow a range that is not finite has others at another of its values.
    others = keys if number is not None else _distinct_keys(sweep, source, 1)[0]
    with ray_cluster():
        check_resources(sweep.resources, ray.cluster_resources())
    stages = {
        stage: (
            len(found) if found == others.get(stage) else None,
            sum(store.exists(stage, key) for key in found),
        )
        for stage, found in keys.items()
    }
    return Preview(number, stages, is_whole, _idle_names(sweep, source))


def _distinct_keys(
    sweep: SweepConfig, source: Source, probe: int
) -> tuple[dict[str, set[str]], bool]:
    """The keys of each stage over the space, and whether that was all of it."""
    points = sweep.search_space.probed_points(base_of(sweep), probe)
    keys: dict[str, set[str]] = {}
    for values in itertools.islice(points, MAX_PREVIEWED):
        for stage, key in make_plan(config_of(sweep, values), source).keys.items():
            keys.setdefault(stage, set()).add(key)
    return keys, next(points, None) is None


def _idle_names(sweep: SweepConfig, source: Source) -> tuple[str, ...]:
    """The names of the space that change no stage of this table's, such as a student's where its
    modality is absent. Names under a condition are left out."""
    space, base = sweep.search_space, base_of(sweep)

    def keys(moved: str | None = None) -> dict[str, str]:
        return make_plan(config_of(sweep, space.corner(base, moved)), source).keys

    # A hint and no check: a corner that is not legal says nothing of the rest of the space.
    with contextlib.suppress(InputError):
        still = keys()
        varied = [name for name, entry in space.unconditional.items() if len(entry.probes()) > 1]
        return tuple(name for name in varied if keys(name) == still)
    return ()


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
    idle = _idle_names(sweep, source)
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
            warnings = [
                ledger.append("warning", message=f"space: {name} changes no stage of this table's")
                for name in idle
            ]
            return drive(sweep, source, options, ledger, [opened, *warnings], console)


def resume_sweep(name: str, options: SweepOptions, console: Console | None = None) -> SweepState:
    """Go on with a sweep from its ledger: trials without an end first, then new ones.

    A sweep that was begun without tracking goes on without, unless an address is given.

    Raises:
        SweepError: there is no such sweep, another process runs it, or its data have changed.
    """
    folder = sweep_folder(options.storage, name)
    with open_ledger(folder, resume=True) as ledger:
        events = list(read_events(ledger.path))
        sweep = validate(SweepConfig, events[0]["config"], str(ledger.path))
        if not events[0].get("tracked", True) and options.tracking_uri is None:
            options = replace(options, tracking_uri="")
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
            return drive(sweep, source, options, ledger, events, console)
