"""The cluster of a sweep: joined, waited for, and checked before anything is trained."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console

from magtkd.config import Config
from magtkd.data import media_root
from magtkd.errors import InputError
from magtkd.model_files import model_folder
from magtkd.pipeline import Plan, Source
from magtkd.store import Store
from tune.cluster import (
    Need,
    check_nodes,
    check_resources,
    chosen_address,
    live_nodes,
    node_types,
    ray_cluster,
    shape_of,
    shared_token,
    wait_for_nodes,
    with_gpu_shares,
)
from tune.config import SweepConfig, SweepOptions
from tune.space import Candidate

__all__ = ["Joined", "needs_of", "sweep_cluster"]

MAX_PROBED = 300


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A sweep as it runs on its cluster, and what is known of the cluster."""

    sweep: SweepConfig
    """With the resources that were chosen for it where it leaves them open."""
    chosen: str = ""
    """One line on what was chosen; empty where nothing was."""
    warnings: tuple[str, ...] = ()
    """Lines on its nodes, which were shown."""
    token_name: str | None = None
    """The file by which nodes show that they see the storage; None on this machine alone."""
    needs: tuple[Need, ...] = ()
    """What the sweep's stages read beside the storage."""


@contextlib.contextmanager
def sweep_cluster(
    sweep: SweepConfig, source: Source, options: SweepOptions, console: Console | None
) -> Iterator[Joined]:
    """The cluster of a sweep for as long as the block lasts.

    Args:
        sweep: the sweep.
        source: its table.
        options: which cluster, and how many of its nodes to wait for.
        console: where to show what is waited for; None for stderr.

    Raises:
        SweepError: it cannot be joined, its nodes do not come, or they cannot do the work: a
            stage's worker fits none of them, or one lacks what the stages read.
        StorageError: the storage cannot be written.
    """
    out = console or Console(stderr=True)

    def note(line: str) -> None:
        out.print(line, highlight=False, markup=False, soft_wrap=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            ray_cluster(options.address, ship_code=options.ship_code, note=note),
        )
        wait_for_nodes(options.wait_nodes, options.wait_seconds, note)
        # What follows is asked of the nodes by the shapes of the workers, so these come first.
        sweep, chosen = _fitted(sweep)
        if len(live_nodes()) == 1 and chosen_address(options.address) == "local":
            yield Joined(sweep=sweep, chosen=chosen)  # this machine: it sees what the driver sees
            return
        store = Store(options.storage)
        token_name = stack.enter_context(shared_token(store, sweep.name))
        needs = needs_of(sweep, source, store)
        stages = sweep.resources.STAGES
        shapes = {shape_of(getattr(sweep.resources, stage)) for stage in stages}
        warnings = check_nodes(store, token_name, needs, shapes, ship_code=options.ship_code)
        for line in warnings:
            note(f"warning: {line}")
        yield Joined(
            sweep=sweep,
            chosen=chosen,
            warnings=tuple(warnings),
            token_name=token_name,
            needs=tuple(needs),
        )


def _fitted(sweep: SweepConfig) -> tuple[SweepConfig, str]:
    """A sweep with its resources as they are on this cluster, and a line on what was chosen."""
    nodes, types = live_nodes(), node_types(sweep.resources.node_types)
    resources, line = with_gpu_shares(sweep.resources, sweep.with_encoder, [*nodes, *types])
    check_resources(resources, nodes, types)
    return sweep.with_resources(resources), line


def needs_of(sweep: SweepConfig, source: Source, store: Store) -> list[Need]:
    """What the stages of a sweep read beside the store, where they are not trained already."""
    found: dict[tuple[str, str], Need] = {}
    exists = functools.cache(store.exists)  # many configurations share their early stages
    for values in sweep.search_space.probe(sweep.base, MAX_PROBED):
        # A hint: values that are not legal together are refused where they are tried.
        with contextlib.suppress(InputError):
            candidate = Candidate(values=values)
            config = candidate.config(sweep.base)
            plan = candidate.plan(sweep.base, source)
            for need in _needs(config, plan, exists):
                found[need.stage, need.path] = need
    return list(found.values())


def _needs(config: Config, plan: Plan, exists: Callable[[str, str], bool]) -> Iterator[Need]:
    for stage, key in plan.keys.items():
        for name, path in _read_by(stage, config):
            if not exists(stage, key):
                shape = shape_of(getattr(config.resources, stage))
                yield Need(stage=stage, shape=shape, name=name, path=path)


def _read_by(stage: str, config: Config) -> Iterator[tuple[str, str]]:
    """The configuration's names and paths of what a stage reads on its node."""
    if stage in {"audio_media", "video_media"}:
        yield "data.media", str(media_root(config.data))
    if stage == "fusion" and config.fusion.initial is not None:
        yield "fusion.initial", config.fusion.initial
    # The frames of a clip are chosen as the encoder asks.
    reader = "video" if stage == "video_media" else stage
    if reader in {"teacher", "audio", "video"}:
        encoder = getattr(config, reader).encoder
        if encoder != "minilm" and model_folder(encoder) is not None:
            yield f"{reader}.encoder", encoder
