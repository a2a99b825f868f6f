"""The events of a ledger: one frozen record a kind.

They are decoded once, where the file is read, and encoded once, where it is written; everything
else matches on their types. In the file each is a JSON object with its `kind` and `time`.
"""

from __future__ import annotations

import json
import typing
import uuid
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.ledger.race import RaceSetup, Standing
from tune.samplers import EarlierTrial
from tune.space import Candidate, Scalar, Values

__all__ = [
    "FORMAT",
    "EpochReported",
    "Event",
    "RoundDecided",
    "StagesRecorded",
    "SweepChanged",
    "SweepClosed",
    "SweepEnd",
    "SweepEvent",
    "SweepOpened",
    "SweepResumed",
    "TestRevealed",
    "TrialChanged",
    "TrialEnded",
    "TrialEvent",
    "TrialStatus",
    "TrialSuggested",
    "TrialsLearned",
    "UnknownEvent",
    "Warned",
    "decode_event",
    "encode_event",
]

FORMAT = 5
"""The format of ledgers that this version writes. A later one has what an earlier version would
misread without a word: 3 brought `SweepChanged`, 4 `TrialsLearned`, 5 ledgers of tables, which are
no search. In format 1, which had no number, keys were made of more settings."""


LATEST = 10**14
"""The latest time of an event, in milliseconds: no calendar has a date for the largest numbers."""


class TrialStatus(StrEnum):
    """Where a trial is, or how it ended."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    """By the scheduler, before its last epoch."""
    DIVERGED = "diverged"
    """A loss was not finite."""
    FAILED = "failed"


class SweepEnd(StrEnum):
    """How a driver's work on a sweep ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """One line of a ledger."""

    time: int = 0
    """Integer milliseconds, never decreasing; set when the event is written."""


class SweepEvent(Event, frozen=True, kw_only=True):
    """An event of the whole sweep."""


class TrialEvent(Event, frozen=True, kw_only=True):
    """An event of one trial."""

    trial: int
    """The trial's number, from 0."""


class SweepOpened(SweepEvent, frozen=True, kw_only=True, tag="sweep_opened"):
    """The first event."""

    name: str
    config: dict[str, Any]
    """The resolved sweep, as plain values."""
    sweep_id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    """Unique, whatever the sweep's name."""
    fingerprint: str = ""
    """Of the table."""
    versions: dict[str, str] = {}
    """Of the packages that computed."""
    tracked: bool = True
    """Whether the sweep is recorded in MLflow."""
    format: int = 1
    """The format of the ledger; see `FORMAT`."""
    race: RaceSetup | None = None
    """Where the ledger is that of a confirmation: what it confirms."""
    table: str | None = None
    """Where the ledger is that of a table's trainings: the table's name."""


class SweepResumed(SweepEvent, frozen=True, kw_only=True, tag="sweep_resumed"):
    """Another driver continues the sweep; what follows is in the format that it names."""

    format: int = 1


class SweepChanged(SweepEvent, frozen=True, kw_only=True, tag="sweep_changed"):
    """From here on, the sweep has other settings of those that change no trial."""

    changes: dict[str, Any]
    """Values by dotted name, as plain ones."""


class SweepClosed(SweepEvent, frozen=True, kw_only=True, tag="sweep_closed"):
    """A driver has ended in an orderly way."""

    reason: SweepEnd
    why: str | None = None
    """The setting that ended the sweep before its last trial, with what it means: trials that have
    not ended are unfinished, and no failures."""


class StoreListed(SweepEvent, frozen=True, kw_only=True, tag="store_listed"):
    """What a driver found in the store, on which later suggestions depend."""

    keys: dict[str, list[str]]
    """The keys of the artifacts there, by stage."""
    seconds: dict[str, float] = {}
    """What training a stage took in earlier sweeps of the same table, on average."""


class TrialsLearned(SweepEvent, frozen=True, kw_only=True, tag="trials_learned"):
    """Trials of an earlier sweep, from which this one's suggestions start."""

    source: str
    """As `search.learn_from` names it."""
    is_same: bool
    """Whether their scores can be compared with this sweep's: the table, the objective and what is
    not searched are the same."""
    trials: list[EarlierTrial] = []


class RoundDecided(SweepEvent, frozen=True, kw_only=True, tag="round_decided"):
    """Some configurations of a race had a number of seeds, and were compared."""

    num_seeds: int
    """Of each of them, those that failed aside."""
    standings: list[Standing]
    """The best first."""
    is_last: bool = False
    """Whether the race is over."""
    chosen: int | None = None
    """The sweep's trial whose configuration is chosen; None before the last round, and where none
    is left."""


class Warned(SweepEvent, frozen=True, kw_only=True, tag="warning"):
    """Something that a person should know, such as a damaged file."""

    message: str


class TrialSuggested(TrialEvent, frozen=True, kw_only=True, tag="trial_suggested"):
    """A trial begins."""

    values: Values
    seed: int | None = None
    changes: dict[int, dict[str, Scalar]] = {}
    """Of the trial that it repeats; see `Candidate.changes`."""

    @property
    def candidate(self) -> Candidate:
        """What is tried."""
        return Candidate(values=self.values, seed=self.seed, changes=self.changes)


class StagesRecorded(TrialEvent, frozen=True, kw_only=True, tag="trial_stages"):
    """How a trial came by some of its stages."""

    stages: dict[str, StageRecord]


class TrialChanged(TrialEvent, frozen=True, kw_only=True, tag="trial_changed"):
    """Population based training gave a trial another candidate, perhaps another trial's session."""

    epoch: int
    """The epoch from which the values hold."""
    values: Values
    """The values that hold from there on."""
    base: Values
    """The first values of the session that the trial continues."""
    changes: dict[int, dict[str, Scalar]] = {}
    """Of that session, all of them; see `Candidate.changes`."""
    seed: int | None = None

    @property
    def candidate(self) -> Candidate:
        """The trial's candidate from now on."""
        return Candidate(values=self.base, changes=self.changes, seed=self.seed)


class EpochReported(TrialEvent, frozen=True, kw_only=True, tag="trial_report"):
    """One epoch's metrics; None for a metric that was not finite."""

    epoch: Annotated[int, msgspec.Meta(ge=0)]
    metrics: dict[str, float | None]


class TrialEnded(TrialEvent, frozen=True, kw_only=True, tag="trial_ended"):
    """A trial is over."""

    state: TrialStatus
    message: str | None = None
    """Why, where it did not complete."""
    dev: Scores | None = None
    """Dev scores of the chosen epoch."""
    epoch: int | None = None
    """The epoch that dev chose."""
    objectives: list[float | None] | None = None
    """The sweep's objectives there."""


class TestRevealed(TrialEvent, frozen=True, kw_only=True, tag="test_revealed"):
    """Test metrics of a selected trial were computed and shown."""

    __test__ = False  # nothing for pytest

    test: Scores
    row: str | None = None
    """The row of a table for which they were; None for a trial that was selected."""


class UnknownEvent(Event, frozen=True, kw_only=True, tag="unknown"):
    """An event of a kind that this version does not have; it changes nothing. Never written."""


_KNOWN = (
    EpochReported
    | RoundDecided
    | StagesRecorded
    | StoreListed
    | SweepChanged
    | SweepClosed
    | SweepOpened
    | SweepResumed
    | TestRevealed
    | TrialChanged
    | TrialEnded
    | TrialSuggested
    | TrialsLearned
    | Warned
)
_TAGS = {kind.__struct_config__.tag for kind in typing.get_args(_KNOWN)}


class _Line(msgspec.Struct):
    """As much as every line has."""

    kind: str
    time: int


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(_KNOWN)
_line_decoder = msgspec.json.Decoder(_Line)


def encode_event(event: Event) -> bytes:
    """The event as one line; a number that is not finite becomes null, as JSON has no others."""
    try:
        return _encoder.encode(event) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_replace_surrogates(msgspec.to_builtins(event))) + b"\n"


def _decode(line: bytes) -> Event:
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError:
        known = _line_decoder.decode(line)
        if known.kind in _TAGS:
            raise
        return UnknownEvent(time=known.time)


def decode_event(line: bytes) -> Event:
    """The event of a line.

    Raises:
        ValueError: the line is none, or lacks what an event of its kind has.
    """
    try:
        event = _decode(line)
    except msgspec.DecodeError as error:
        if isinstance(error, msgspec.ValidationError) or b"\\ud" not in line.lower():
            raise
        # Format 1 wrote lone surrogates, which UTF-8 has not.
        event = _decode(json.dumps(_replace_surrogates(json.loads(line))).encode())
    if event.time <= 0:
        raise ValueError("it has no time")
    if event.time > LATEST:
        raise ValueError(f"its time, {event.time}, is after the year 5000")
    return event


def _replace_surrogates(value: Any) -> Any:
    """The value with `?` for each lone surrogate, such as those of a path that is not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(one) for name, one in value.items()}
    return [_replace_surrogates(one) for one in value] if isinstance(value, list) else value
