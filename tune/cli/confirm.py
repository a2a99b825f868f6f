"""`magtkd confirm`: the best configurations of a sweep again, on fresh seeds."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Annotated

import typer

from magtkd.cli import EXIT_CODES, JsonOption, Overrides, StorageOption, examples
from magtkd.errors import SweepError
from tune.cli.options import (
    AddressOption,
    NameArgument,
    NoTrackingOption,
    ShipCodeOption,
    WaitNodesOption,
    WaitSecondsOption,
    check_alone,
    command_of,
    to_be_continued,
)
from tune.config import SweepOptions
from tune.ledger import VARY, SweepEnd, SweepLayout, SweepState, read_sweep
from tune.results import confirmation_json, find_confirmation, print_confirmation

__all__ = ["add_confirm"]


def add_confirm(app: typer.Typer) -> None:
    """Add `confirm` to a command line."""
    shown = examples(
        "magtkd confirm mosi",
        "magtkd confirm mosi --top 3 --seeds 5",
        "magtkd confirm mosi --vary fusion --again",
        "magtkd confirm mosi search.max_concurrent=8 --address auto --storage /shared/magtkd",
    )
    app.command("confirm", epilog=f"{shown}\n\n{EXIT_CODES}")(confirm)


def confirm(
    name: NameArgument,
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="K", help="How many configurations, the best first [5]."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="The most seeds of each [10].")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", metavar="C", help="With which a worse one gets no more seeds [0.95]."
        ),
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option("--vary", metavar="|".join(VARY), help="Stages with fresh seeds [all]."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Confirm anew, as after more trials; what is trained is reused."
        ),
    ] = False,
    address: AddressOption = None,
    wait_nodes: WaitNodesOption = 1,
    wait_seconds: WaitSecondsOption = 600.0,
    ship_code: ShipCodeOption = False,
    no_tracking: NoTrackingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a sweep's best configurations with fresh seeds, and rank them by their means on dev.

    A configuration that is worse than the best with confidence gets no further seed. The same
    command continues a confirmation that was interrupted, and shows one that is over. Of the
    sweep's values, search.max_concurrent and resources may be overridden.
    """
    chosen = next((one for one in VARY if one == vary), None)
    if vary is not None and chosen is None:
        raise SweepError(f"--vary {vary!r}: use one of {', '.join(VARY)}")
    options = SweepOptions(
        storage=storage,
        tracking_uri="" if no_tracking else None,
        address=address,
        wait_nodes=wait_nodes,
        wait_seconds=wait_seconds,
        ship_code=ship_code,
    )
    # Ray takes seconds to load.
    from tune.driver import ConfirmRequest, confirm_sweep

    check_alone(os.environ)
    request = ConfirmRequest(
        top=top,
        num_seeds=seeds,
        confidence=confidence,
        vary=chosen,
        again=again,
    )
    command = command_of(options, "confirm", name)
    state = to_be_continued(
        command,
        lambda on_lost: confirm_sweep(
            name, request, options, on_lost=on_lost, overrides=overrides or ()
        ),
    )
    _show(state, storage, command, as_json=as_json, no_tracking=no_tracking)
    if not state.is_confirmed and state.closed == SweepEnd.INTERRUPTED:
        raise typer.Exit(130)
    if state.chosen is None:
        raise typer.Exit(1)


def _show(
    state: SweepState, storage: str, command: str, *, as_json: bool, no_tracking: bool
) -> None:
    layout = SweepLayout.of(storage, state.name)
    sweep_state = read_sweep(layout)
    found = find_confirmation(layout, sweep_state) if state.chosen is not None else None
    if as_json:
        tree = confirmation_json(state) if found is None else found.to_json()
        print(json.dumps(tree, indent=2))
        return
    print_confirmation(state, sys.stdout)
    if not state.is_confirmed:
        print(f"interrupted; to continue: {command}")
    if found is None:
        return
    if number := found.num_since(sweep_state):
        trials = "a trial" if number == 1 else f"{number} trials"
        print(
            f"the sweep has completed {trials} since; to confirm it as it is now: {command} --again"
        )
    if state.is_tracked and not no_tracking:
        from tune.tracking import dashboard_lines

        for line in dashboard_lines(layout.tracking_uri, sweep_state.sweep_id, state.race):
            print(line)
    print(f"next: {shlex.join(['magtkd', 'best', state.name, '--storage', storage])}")
