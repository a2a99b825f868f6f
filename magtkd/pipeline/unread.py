"""Settings that have no effect: which ones, and why.

It follows from what sections declare (`magtkd.reading`) and from which stages there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from magtkd.config import Config, get_value, given_names, names_of
from magtkd.data import MODALITIES
from magtkd.pipeline.members import STAGES, find_stage
from magtkd.pipeline.plan import stages_read
from magtkd.pipeline.source import ANY_TABLE, Source

__all__ = ["given_settings", "unread_lines", "unread_names", "unread_settings"]


def given_settings(config: Config) -> set[str]:
    """The dotted names of the settings that were given.

    A setting counts as given where it is written in a file, on the command line or in a search
    space and differs from the default: a resolved configuration has all defaults written down. What
    a recipe sets does not count.
    """
    given, defaults = given_names(config), Config()
    return {
        name
        for name in names_of()
        if name in given and get_value(config, name) != get_value(defaults, name)
    }


def unread_settings(config: Config, source: Source | None = None) -> dict[str, str]:
    """The settings that were given (`given_settings`) and are not read: dotted names, each with
    the reason.

    Args:
        config: the configuration.
        source: the table; None for what has no effect with any table.

    Raises:
        DataError: the table lacks what the configuration wants; see `make_plan`.
    """
    unread, given = unread_names(config, source), given_settings(config)
    return {name: unread[name] for name in names_of() if name in unread and name in given}


def unread_lines(unread: Mapping[str, str]) -> tuple[str, ...]:
    """What `unread_settings` gives as lines of text, one for each reason."""
    names: dict[str, list[str]] = {}
    for name, why in unread.items():
        names.setdefault(why, []).append(name)
    return tuple(
        f"{', '.join(found)} {'has' if len(found) == 1 else 'have'} no effect: {why}"
        for why, found in names.items()
    )


def unread_names(config: Config, source: Source | None = None) -> dict[str, str]:
    """All dotted names that are not read, given or not, each with the reason. A section in a
    section, such as `audio.distill`, has a name too.

    Args:
        config: the configuration.
        source: the table; None for what is not read with any table.

    Raises:
        DataError: the table lacks what the configuration wants; see `make_plan`.
    """
    table = source or ANY_TABLE
    chain = stages_read(config, table)
    unread: dict[str, str] = {}
    for name in STAGES:
        if name in chain:
            stage = find_stage(name)
            found = stage.section(config).unread(stage.given(config, table))
            unread |= {f"{name}.{inner}": why for inner, why in found.items()}
        else:
            why = f"there is no stage {name}: the chain is {', '.join(chain)}"
            seed = f"seeds.{name}"
            names = [one for one in names_of() if one.startswith(f"{name}.") or one == seed]
            if _misses_features(name, config, table):
                names.remove(f"{name}.encoder")  # another one would make the stage
            unread |= dict.fromkeys(names, why)
    own = [getattr(config.seeds, name, None) for name in chain if hasattr(config.seeds, name)]
    if None not in own:
        unread["seed"] = "seeds has one for each stage"
    return unread


def _misses_features(name: str, config: Config, table: Source) -> bool:
    """Whether a stage is absent only because the table has no features of its modality."""
    stage = find_stage(name)
    if not stage.is_trained or stage.is_there(config, table):
        return False
    there = tuple(one for one in MODALITIES if one in (*table.with_features, stage.modality))
    return name in stages_read(config, replace(table, with_features=there))
