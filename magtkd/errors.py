"""What can go wrong, as a tree.

    MagtkdError                        exit code 1, where nothing else is said
    ├── InputError (also ValueError)   the user gave something wrong; exit code 2
    │   ├── ConfigError                a key, a value or a file of the configuration
    │   ├── DataError                  a table of conversations
    │   ├── StorageError               the storage's address, or a folder that cannot be written
    │   ├── SweepError                 a sweep's name, space, objective, resources
    │   │   └── NoneCompletedError     a sweep without a completed trial; exit code 1
    │   └── TrackingError              MLflow's address, or what is there refuses for good
    ├── ResumableError                 a fault that may be gone later; exit code 75
    │   ├── StorageLostError           the storage went away, or is full, in the middle of the work
    │   ├── OwnerLostError             another driver has taken the sweep over
    │   └── RayLostError               Ray went away
    ├── ArtifactError                  an artifact that is missing or does not match its checksums
    ├── DivergedError                  a loss that is not finite
    └── StageMemoryError               a stage that did not fit into memory

Each message is one line and names the file or place, the value, and the way out. Where another
message uses only a part of it, that part is an attribute: no message is ever parsed.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "MAX_SHOWN",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "InputError",
    "MagtkdError",
    "NoneCompletedError",
    "OwnerLostError",
    "RayLostError",
    "ResumableError",
    "StageMemoryError",
    "StorageError",
    "StorageLostError",
    "SweepError",
    "TrackingError",
    "and_more",
    "first_line",
    "shorten",
]


class MagtkdError(Exception):
    """Base of all errors that this project raises on purpose; the message is
    `reason; way_out`.

    Args:
        reason: the place, and what is wrong there.
        way_out: what to do, where it is given apart from the reason.
    """

    exit_code = 1
    """Of a command that ends with it."""

    def __init__(self, reason: str, way_out: str = "") -> None:
        # Both go to Exception: an error that crosses processes is rebuilt from its args.
        super().__init__(reason, way_out)
        self.reason, self.way_out = reason, way_out

    def __str__(self) -> str:
        return f"{self.reason}; {self.way_out}" if self.way_out else self.reason


class InputError(MagtkdError, ValueError):
    """Something the user gave is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A key, a value or a file of the configuration is wrong."""


class DataError(InputError):
    """A table of conversations is wrong."""


class StorageError(InputError):
    """The storage's address is wrong, or its folder cannot be used to begin with."""


class SweepError(InputError):
    """A sweep's name, space, objective or resources are wrong."""


class NoneCompletedError(SweepError):
    """A sweep has no completed trial that could be selected."""

    exit_code = 1


class TrackingError(InputError):
    """MLflow's address is wrong, or what answers there refuses, and would refuse again."""


class ResumableError(MagtkdError):
    """The work could not go on, and nothing is wrong with it: what is done is kept, and the same
    command, or `--resume`, continues from there."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h."""


class StorageLostError(ResumableError):
    """The storage was there, and cannot be read or written any more."""


class OwnerLostError(ResumableError):
    """Another driver has taken the sweep over."""


class RayLostError(ResumableError):
    """Ray, or an actor that the driver cannot do without, has gone."""


class ArtifactError(MagtkdError):
    """An artifact is missing or does not match its checksums."""


class DivergedError(MagtkdError):
    """A loss was not finite, in this `stage`, `epoch` (from 1) and `step` (from 1)."""

    def __init__(self, stage: str, epoch: int, step: int, value: float) -> None:
        super().__init__(
            f"{stage}: diverged: the loss was {value} in epoch {epoch}, step {step}",
            f"lower {stage}.learning_rate or {stage}.gradient_norm",
        )
        self.args = (stage, epoch, step, value)
        self.stage, self.epoch, self.step, self.value = stage, epoch, step, value


class StageMemoryError(MagtkdError):
    """A stage did not fit into memory; the message has the sizes that decide."""


MAX_SHOWN = 80
"""Characters of a user's value that a message shows."""


def shorten(text: str) -> str:
    """A value as a message shows it: cut where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def first_line(error: BaseException, max_length: int = 300) -> str:
    """The first line of an error's message, or the name of its type where it has none."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:max_length]


def and_more(names: Iterable[str], max_shown: int, separator: str = ", ") -> str:
    """The first names, separated, and how many more there are; a separator other than the comma
    is also before that count."""
    every = [shorten(name) for name in names]
    more = len(every) - max_shown
    shown = separator.join(every[:max_shown])
    if more <= 0:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {more} more"
