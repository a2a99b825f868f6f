"""What can go wrong, as a tree.

    MagtkdError
    ├── InputError (also ValueError)   the user gave something wrong; the command line exits with 2
    │   ├── ConfigError                a key, a value or a file of the configuration
    │   ├── DataError                  a table of conversations
    │   ├── StorageError               the storage folder or address
    │   └── SweepError                 a sweep's name, space, objective, resources
    ├── ArtifactError                  an artifact that is missing or does not match its checksums
    ├── DivergedError                  a loss that is not finite
    └── StageMemoryError               a stage that did not fit into memory

Each message is one line and names the file or place, the value, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "InputError",
    "MagtkdError",
    "StageMemoryError",
    "StorageError",
    "SweepError",
    "and_more",
    "first_line",
]


class MagtkdError(Exception):
    """Base of all errors that this project raises on purpose."""


class InputError(MagtkdError, ValueError):
    """Something the user gave is wrong."""


class ConfigError(InputError):
    """A key, a value or a file of the configuration is wrong."""


class DataError(InputError):
    """A table of conversations is wrong."""


class StorageError(InputError):
    """The storage folder or address cannot be used."""


class SweepError(InputError):
    """A sweep's name, space, objective or resources are wrong."""


class ArtifactError(MagtkdError):
    """An artifact is missing or does not match its checksums."""


class DivergedError(MagtkdError):
    """A loss was not finite, in this `stage`, `epoch` (from 1) and `step` (from 1)."""

    def __init__(self, stage: str, epoch: int, step: int, value: float) -> None:
        # All four go to Exception: an error that crosses processes is rebuilt from its args.
        super().__init__(stage, epoch, step, value)
        self.stage, self.epoch, self.step, self.value = stage, epoch, step, value

    def __str__(self) -> str:
        return (
            f"{self.stage}: diverged: the loss was {self.value} in epoch {self.epoch}, "
            f"step {self.step}; lower {self.stage}.learning_rate or {self.stage}.gradient_norm"
        )


class StageMemoryError(MagtkdError):
    """A stage did not fit into memory; the message has the sizes that decide."""


def first_line(error: BaseException, max_length: int = 300) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    lines = str(error).splitlines()
    return (lines[0] if lines and lines[0].strip() else type(error).__name__)[:max_length]


def and_more(names: Iterable[str], max_shown: int) -> str:
    """The first names, separated by commas, and how many more there are."""
    every = list(names)
    more = len(every) - max_shown
    return ", ".join(every[:max_shown]) + (f" and {more} more" if more > 0 else "")
