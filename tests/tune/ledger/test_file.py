"""The ledger: what is written is read, whatever happens to the file, and folds to one state."""

from __future__ import annotations

import functools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.errors import StorageError, StorageLostError, SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.ledger import (
    FORMAT,
    EpochReported,
    Event,
    Ledger,
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepResumed,
    SweepState,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    UnknownEvent,
    Warned,
    check_unused,
    decode_event,
    encode_event,
    find_opened,
    fold,
    open_ledger,
    read_events,
    read_sweep,
    tail_events,
)

FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "ledgers_of_format_1"
# As the version that wrote these ledgers computed them.
NAMES_IN_FORMAT_1 = [
    "afb87eb5e29aecdc",
    "4950430b46160c3f",
    "474498376c8c550d",
    "b342c7ab7df08191",
]
CHANGED = TrialChanged(
    trial=1,
    epoch=2,
    values={"fusion.depth": 3, "fusion.dropout": 0.3},
    base={"fusion.depth": 3},
    changes={2: {"dropout": 0.3}},
)
CONFIG = {"name": "mosi", "objective": {"metric": "dev/weighted_f1", "mode": "max"}}


def write_small_sweep(layout: SweepLayout) -> list[Event]:
    """A sweep of two trials, one completed and one running; the events as `append` gave them."""
    with open_ledger(layout) as ledger:
        return [
            ledger.append(SweepOpened(name=layout.name, config=CONFIG, versions={"ray": "2"})),
            ledger.append(TrialSuggested(trial=0, values={"fusion.depth": 2})),
            ledger.append(TrialSuggested(trial=1, values={"fusion.depth": 3})),
            ledger.append(
                StagesRecorded(
                    trial=0,
                    stages={"teacher": StageRecord("a1", "trained", 5.0)},
                )
            ),
            ledger.append(EpochReported(trial=0, epoch=1, metrics={"dev/loss": 0.5})),
            ledger.append(EpochReported(trial=0, epoch=2, metrics={"dev/loss": math.nan})),
            ledger.append(CHANGED),
            ledger.append(
                TrialEnded(
                    trial=0,
                    state=TrialStatus.COMPLETED,
                    epoch=1,
                    dev=Scores(0.7, 0.6),
                    objectives=[0.6],
                )
            ),
        ]


def test_reader_sees_what_append_returned(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    events = write_small_sweep(layout)
    assert list(read_events(layout.ledger)) == events
    assert isinstance(events[5], EpochReported)
    assert events[5].metrics == {"dev/loss": None}
    times = [event.time for event in events]
    assert times == sorted(times)
    assert all(type(time) is int for time in times)


def test_state_is_what_the_events_say(tmp_path: Path) -> None:
    events = write_small_sweep(SweepLayout(tmp_path, "mosi"))
    state = read_sweep(SweepLayout(tmp_path, "mosi"))
    assert isinstance(events[0], SweepOpened)
    assert (state.name, state.config, state.versions) == ("mosi", CONFIG, {"ray": "2"})
    assert state.sweep_id == events[0].sweep_id
    assert state.count() == {"completed": 1, "running": 1}
    first, second = state.trials[0], state.trials[1]
    assert [(report.epoch, report.metrics) for report in first.reports] == [
        (1, {"dev/loss": 0.5}),
        (2, {"dev/loss": None}),
    ]
    assert first.stages["teacher"].key == "a1"
    assert (first.epoch, first.objectives, first.ended_time) == (1, [0.6], events[-1].time)
    assert second.changes == {2: {"fusion.depth": 3, "fusion.dropout": 0.3}}
    assert second.candidate.changes == {2: {"dropout": 0.3}}
    assert second.candidate.current == second.changes[2]
    assert second.values == {"fusion.depth": 3}
    assert second.suggested_time == events[2].time
    assert state.closed is None


def test_repeats_after_a_resume_say_nothing_new(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    write_small_sweep(layout)
    state = read_sweep(layout)
    with open_ledger(layout, resume=True) as ledger:
        assert state.apply(ledger.append(SweepClosed(reason=SweepEnd.INTERRUPTED)))
        assert state.closed == "interrupted"
        assert state.apply(ledger.append(SweepResumed()))
        again = [
            ledger.append(EpochReported(trial=0, epoch=2, metrics={"dev/loss": 0.1})),
            ledger.append(TrialEnded(trial=0, state=TrialStatus.FAILED)),
            ledger.append(CHANGED),
            ledger.append(
                StagesRecorded(
                    trial=0,
                    stages={"teacher": StageRecord("a1", "reused", 0.1)},
                )
            ),
            decode_event(b'{"kind":"of_a_later_version","time":1,"anything":1}'),
        ]
    assert not any(state.apply(event) for event in again)
    trial = state.trials[0]
    assert (trial.state, trial.stages["teacher"].outcome) == ("completed", "trained")
    assert trial.reports[1].metrics == {"dev/loss": None}
    assert (state.closed, state.num_resumed) == (None, 1)


def test_an_event_that_fits_nothing_is_refused() -> None:
    state = SweepState()
    with pytest.raises(SweepError, match="EpochReported of trial 7, which was never suggested"):
        state.apply(EpochReported(time=1, trial=7, epoch=1, metrics={}))
    state.apply(TrialSuggested(time=1, trial=7, values={}))
    with pytest.raises(SweepError, match="trial 7 was suggested twice"):
        state.apply(TrialSuggested(time=2, trial=7, values={}))


# --- torn files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Event], Path]:
    layout = SweepLayout(tmp_path_factory.mktemp("torn"), "mosi")
    events = write_small_sweep(layout)
    return layout.ledger.read_bytes(), events, layout.root


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_truncation_gives_a_prefix(
    small_sweep: tuple[bytes, list[Event], Path], data: st.DataObject
) -> None:
    content, events, folder = small_sweep
    length = data.draw(st.integers(0, len(content)))
    layout = SweepLayout(folder, "cut")
    path = layout.ledger
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content[:length])
    num_whole = content[:length].count(b"\n")
    assert list(read_events(path)) == events[:num_whole]
    # A writer cuts the torn tail off and continues, no earlier than the last event.
    with Ledger(layout) as ledger:
        added = ledger.append(SweepResumed())
    assert list(read_events(path)) == [*events[:num_whole], added]
    assert added.time >= max((event.time for event in events[:num_whole]), default=0)


@settings(max_examples=50, deadline=None)
@given(chunk=st.integers(1, 2000))
def test_tail_in_any_chunks_is_the_whole(
    small_sweep: tuple[bytes, list[Event], Path], chunk: int
) -> None:
    content, events, folder = small_sweep
    path = SweepLayout(folder, "mosi").ledger
    found, offset = [], 0
    while offset < len(content):
        some, offset = tail_events(path, offset, chunk)
        found += some
    assert found == events
    assert tail_events(path, offset, chunk) == ([], offset)


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind": "trial_rep',
        b'{"kind":"x","time":NaN}',
        b'{"kind":"x","time":4611686018427387904}',
        b'{"kind":"sweep_resumed","time":100000000000001}',
        b"[]",
        b"\x00\xff",
    ],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"kind":"x","time":1}\n' + line + b'\n{"kind":"y","time":2}\n')
    with pytest.raises(SweepError, match=r"ledger\.jsonl: line 2: .* is not an event: .*; restore"):
        list(read_events(path))


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"ledger.jsonl: cannot read the ledger: No such file"):
        list(read_events(tmp_path / "ledger.jsonl"))


def test_text_that_utf_8_lacks_is_replaced() -> None:
    warned = Warned(time=1, message="no \ud800\udc00 \ud800")
    assert decode_event(encode_event(warned)) == Warned(time=1, message="no ?? ?")
    format_1 = b'{"kind":"warning","time":1,"message":"no \\ud800"}'
    assert decode_event(format_1) == Warned(time=1, message="no ?")


# --- names and locks --------------------------------------------------------------------------


def test_a_name_that_exists_offers_resume(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    write_small_sweep(layout)
    before = layout.ledger.read_bytes()
    with pytest.raises(
        SweepError, match=r"'mosi': exists already .* continue it with --resume mosi"
    ):
        open_ledger(SweepLayout(tmp_path, "mosi"))
    assert layout.ledger.read_bytes() == before
    # The refused one has not kept the lock.
    open_ledger(SweepLayout(tmp_path, "mosi"), resume=True).close()


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"'mosy': not found in .*; there is none yet"):
        open_ledger(SweepLayout(tmp_path, "mosy"), resume=True)
    write_small_sweep(SweepLayout(tmp_path, "mosi"))
    with pytest.raises(SweepError, match=r"'mosy': not found in .*; did you mean 'mosi'"):
        open_ledger(SweepLayout(tmp_path, "mosy"), resume=True)
    with pytest.raises(SweepError, match=r"'xyz': not found in .*; there is mosi"):
        read_sweep(SweepLayout(tmp_path, "xyz"))
    with pytest.raises(SweepError, match=r"'mosi': there is no folder .*/absent; give its --stor"):
        read_sweep(SweepLayout(tmp_path / "absent", "mosi"))
    assert not SweepLayout(tmp_path, "mosy").folder.exists()


@pytest.mark.parametrize("content", [None, "", '{"kind":"sweep_op'])
def test_a_driver_that_died_before_its_first_event_left_no_sweep(
    tmp_path: Path, content: str | None
) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    layout.folder.mkdir(parents=True)
    layout.lock.write_text("process 1")
    if content is not None:
        layout.ledger.write_text(content)
    for call in (read_sweep, functools.partial(open_ledger, resume=True)):
        with pytest.raises(SweepError, match=r"'mosi': has not begun: .*; start it with its file"):
            call(layout)
    with pytest.raises(SweepError, match=r"'mosy': not found in .*; there is none yet"):
        read_sweep(SweepLayout(tmp_path, "mosy"))
    assert find_opened(layout) is None
    check_unused(layout)
    write_small_sweep(layout)
    assert read_sweep(layout).name == "mosi"


def test_a_folder_that_was_renamed_is_refused(tmp_path: Path) -> None:
    write_small_sweep(SweepLayout(tmp_path, "mosi"))
    renamed = SweepLayout(tmp_path, "other")
    SweepLayout(tmp_path, "mosi").folder.rename(renamed.folder)
    before = renamed.ledger.read_bytes()
    for call in (read_sweep, functools.partial(open_ledger, resume=True)):
        with pytest.raises(SweepError, match=r"'other': .* is that of sweep 'mosi'; .* 'mosi' ag"):
            call(renamed)
    with pytest.raises(SweepError, match="'other': exists already"):
        open_ledger(renamed)
    assert renamed.ledger.read_bytes() == before


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        open_ledger(SweepLayout(tmp_path, "mosi")),
        pytest.raises(SweepError, match=f"'mosi': process {os.getpid()} on .* is running it"),
    ):
        open_ledger(SweepLayout(tmp_path, "mosi"), resume=False)


def test_a_dead_writers_lock_does_not_block(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tune.ledger import SweepLayout, SweepOpened, open_ledger\n"
        "ledger = open_ledger(SweepLayout.of(sys.argv[1], 'mosi'))\n"
        "ledger.append(SweepOpened(name='mosi', config={}))\n"
        "print('open', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "open\n"
        with pytest.raises(SweepError, match=f"process {driver.pid} on"):
            open_ledger(SweepLayout(tmp_path, "mosi"), resume=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    with open_ledger(SweepLayout(tmp_path, "mosi"), resume=True) as ledger:
        ledger.append(SweepResumed())
    assert read_sweep(SweepLayout(tmp_path, "mosi")).num_resumed == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write: Not a directory; .* --storage"):
        open_ledger(SweepLayout(tmp_path / "file", "mosi"))


def test_a_full_disk_leaves_the_ledger_whole(tmp_path: Path) -> None:
    ledger = open_ledger(SweepLayout(tmp_path, "mosi"))
    event = ledger.append(SweepOpened(name="mosi", config={}, versions={}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # A limit on the file's size fails a write in its middle, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.num_bytes + 20, limits[1]))
    try:
        with pytest.raises(
            StorageLostError, match=r"cannot write: .*; make room, then .* --resume"
        ):
            ledger.append(TrialSuggested(trial=0, values={"fusion.depth": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(read_events(ledger.path)) == [event]
    again = ledger.append(TrialSuggested(trial=0, values={"fusion.depth": 2}))
    ledger.close()
    assert list(read_events(ledger.path)) == [event, again]


@pytest.mark.parametrize("name", ["sweeps/mosi/ledger.jsonl", "sweeps/mosi/lock", "artifacts"])
@pytest.mark.parametrize("how", ["removed", "replaced", "moved away"])
def test_a_storage_that_goes_away_is_noticed(tmp_path: Path, name: str, how: str) -> None:
    layout = SweepLayout(tmp_path / "store", "mosi")
    ledger = open_ledger(layout)
    ledger.append(SweepOpened(name="mosi", config={}, versions={}))
    ledger.check()
    path = layout.root / name
    if how == "moved away":
        layout.root.rename(tmp_path / "elsewhere")
    else:
        path.rename(tmp_path / "elsewhere")
    if how == "replaced":
        path.mkdir() if name == "artifacts" else path.write_text("")
    ledger._synced = 0.0  # it is time to
    with pytest.raises(StorageLostError, match=r"is not what this .*removed, unmounted or rep"):
        ledger.append(SweepResumed())
    with pytest.raises(StorageLostError, match="put it back"):
        ledger.close()


STEPS = st.tuples(st.sampled_from(["append", "check"]), st.sampled_from([0.0, 0.25, 0.75, 1.0, 9]))


@settings(max_examples=30)
@given(steps=st.lists(STEPS, min_size=1, max_size=8))
def test_what_a_power_cut_takes_is_younger_than_a_second(steps: list[tuple[str, float]]) -> None:
    clock, on_disk, fsync = 100.0, 0, os.fsync

    def observed(file: int) -> None:
        nonlocal on_disk
        fsync(file)
        on_disk = os.fstat(file).st_size

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(os, "fsync", observed)
        patch.setattr(time, "monotonic", lambda: clock)
        ledger = open_ledger(SweepLayout(Path(folder), "mosi"))
        written: list[tuple[float, int]] = []
        for what, seconds in steps:
            clock += seconds
            if what == "append":
                ledger.append(SweepResumed())
                written.append((clock, ledger.num_bytes))
            else:
                ledger.check()
            old = [size for when, size in written if clock - when >= 1]
            assert on_disk >= max(old, default=0)
            # An append that is the first for a second is synced before it returns.
            if what == "append" and seconds >= 1:
                assert on_disk == ledger.num_bytes
        ledger.close()
        assert on_disk == ledger.num_bytes


def test_time_never_goes_back(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    layout.folder.mkdir(parents=True)
    far = 10**13
    layout.ledger.write_text(f'{{"kind":"sweep_resumed","time":{far}}}\n')
    with Ledger(layout) as ledger:
        assert ledger.append(SweepResumed()).time == far


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        ({"state": "running"}, "trial 0: ended as 'running'; restore the ledger"),
        ({"state": "completed", "objectives": [0.1, 0.2]}, "2 objectives, but the sweep has 1"),
        ({"state": "completed", "objectives": []}, "0 objectives, but the sweep has 1"),
    ],
)
def test_an_end_that_does_not_fit_is_refused(
    tmp_path: Path, ended: dict[str, object], message: str
) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name="mosi", config=CONFIG))
        time = ledger.append(TrialSuggested(trial=0, values={})).time
    with layout.ledger.open("a") as file:
        line = {"kind": "trial_ended", "time": time, "trial": 0, **ended}
        file.write(json.dumps(line) + "\n")
    with pytest.raises(SweepError, match=message):
        read_sweep(layout)


def test_a_ledger_without_its_opening_is_refused(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    with Ledger(layout) as ledger:
        ledger.append(SweepResumed())
    with pytest.raises(SweepError, match=r"ledger\.jsonl: does not begin with the opening"):
        read_sweep(layout)
    with pytest.raises(SweepError, match=r"ledger\.jsonl: does not begin with the opening"):
        open_ledger(layout, resume=True)


def test_an_unknown_event_may_have_a_lone_surrogate() -> None:
    line = b'{"kind":"of_tomorrow","time":3,"path":"\\udc80"}\n'
    assert decode_event(line) == UnknownEvent(time=3)


def test_a_ledger_of_a_later_format_is_refused_by_its_number(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    layout.folder.mkdir(parents=True)
    later = SweepOpened(time=1, name="mosi", config={}, format=FORMAT + 1)
    layout.ledger.write_bytes(encode_event(later))
    with pytest.raises(SweepError, match=rf"format {FORMAT + 1}.* up to {FORMAT}; install"):
        read_sweep(layout)


def test_a_resume_in_a_later_format_is_refused_by_its_number(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    write_small_sweep(layout)
    with layout.ledger.open("ab") as file:
        file.write(encode_event(SweepResumed(time=10**13, format=FORMAT + 1)))
    with pytest.raises(SweepError, match=rf"format {FORMAT + 1}.* up to {FORMAT}; install"):
        read_sweep(layout)


@pytest.mark.parametrize("name", ["before", "before-pbt"])
def test_lines_of_format_1_say_the_same_when_they_are_written_again(name: str) -> None:
    lines = (FORMAT_1 / f"{name}.jsonl").read_bytes().splitlines()
    for line in lines:
        assert decode_event(encode_event(decode_event(line))) == decode_event(line)
    states = fold(decode_event(line) for line in lines)
    assert states.format == 1
    assert all(trial.candidate.values for trial in states.trials.values())


def test_a_trial_of_format_1_keeps_the_name_of_its_session() -> None:
    state = fold(read_events(FORMAT_1 / "before-pbt.jsonl"))
    assert [trial.candidate.name for trial in state.trials.values()] == NAMES_IN_FORMAT_1
    assert any(trial.candidate.changes for trial in state.trials.values())
