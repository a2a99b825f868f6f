"""Which faults of a storage pass, and how they are waited for."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import StorageLostError
from magtkd.store import (
    Checkpoints,
    Store,
    faults,
    patience_of,
    patiently,
    report_faults_to,
)
from magtkd.store.faults import is_passing

# As pyarrow 25 words them, seen with a real server.
OF_AN_OBJECT_STORE = (
    "When getting information for key 'x' in bucket 'b': AWS Error UNKNOWN (HTTP status {status}) "
    "during HeadObject operation: No response body."
)
BY_NAME = "When listing objects under key 'x/' in bucket 'b': AWS Error {name} during ListObjectsV2"
PASSING = ("NETWORK_CONNECTION", "INTERNAL_FAILURE", "SLOW_DOWN", "SERVICE_UNAVAILABLE")
LASTING = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
PASSING_NUMBERS = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET)
LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(faults, "LONGEST_PAUSE_SECONDS", 0.01)


def numbered(number: int) -> OSError:
    return OSError(number, os.strerror(number))


faults_that_pass = st.one_of(
    st.sampled_from(PASSING).map(lambda name: OSError(BY_NAME.format(name=name))),
    st.one_of(st.integers(500, 599), st.sampled_from([-1, 408, 429])).map(
        lambda status: OSError(OF_AN_OBJECT_STORE.format(status=status))
    ),
    st.sampled_from(PASSING_NUMBERS).map(numbered),
)
faults_that_last = st.one_of(
    st.sampled_from(LASTING).map(lambda name: OSError(BY_NAME.format(name=name))),
    st.integers(400, 499)
    .filter(lambda status: status not in {408, 429})
    .map(lambda status: OSError(OF_AN_OBJECT_STORE.format(status=status))),
    st.sampled_from(LASTING_NUMBERS).map(numbered),
    st.just(OSError("Bucket 'b' not found. To create buckets, enable allow_bucket_creation")),
)


@given(st.lists(faults_that_pass, max_size=6))
def test_what_passes_is_waited_for(errors: list[OSError]) -> None:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    notes: list[str] = []
    with report_faults_to(notes.append):
        assert patiently(call, "s3://b/p", "read x", seconds=60) == "done"
    assert left == []
    assert len(notes) == (2 if len(errors) > 1 else 0)  # a hiccup is not worth a line


@given(faults_that_last)
def test_what_lasts_is_raised_at_once(error: OSError) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise error

    assert not is_passing(error)
    with pytest.raises(OSError, match=r".") as caught:
        patiently(call, "s3://b/p", "read x", seconds=60)
    assert caught.value is error
    assert len(calls) == 1


@given(faults_that_pass)
def test_what_should_pass_and_does_not_is_named_with_the_time_and_the_reason(
    error: OSError,
) -> None:
    def call() -> None:
        raise error

    with pytest.raises(StorageLostError, match=r"cannot read x: .*tried for 0 s; .*answers") as got:
        patiently(call, "s3://b/p", "read x", seconds=0.02)
    assert "\n" not in str(got.value)
    assert "make room" not in str(got.value)
    assert str(pickle.loads(pickle.dumps(got.value))) == str(got.value)


def test_several_that_wait_at_once_are_one_fault() -> None:
    notes: list[str] = []
    is_away = threading.Event()

    def call() -> None:
        if not is_away.is_set():
            raise numbered(errno.ECONNRESET)

    with report_faults_to(notes.append):
        threads = [
            threading.Thread(target=patiently, args=(call, "s3://b/p", f"read {number}"))
            for number in range(5)
        ]
        for thread in threads:
            thread.start()
        while not notes:
            pass
        is_away.set()
        for thread in threads:
            thread.join()
    assert len(notes) == 2
    assert "cannot read" in notes[0]
    assert notes[1].startswith("storage s3://b/p: the wait is over, after ")


def test_the_time_to_wait_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGTKD_STORAGE_PATIENCE", "0.01")

    def call() -> None:
        raise numbered(errno.ETIMEDOUT)

    with pytest.raises(StorageLostError, match=r"cannot write y: .*timed out"):
        patiently(call, "/mnt/x", "write y")


def test_a_checkpoint_that_cannot_be_read_for_a_while_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Checkpoints(store, "stages/teacher").save(b"older")
    Checkpoints(store, "stages/teacher").save(b"newest")
    arrow, left = store._filesystem._arrow, [numbered(errno.ESTALE)] * 3

    class Away:
        def __getattr__(self, name: str) -> object:
            if name == "open_input_file" and left:
                raise left.pop()
            return getattr(arrow, name)

    store._filesystem._found = Away()
    assert Checkpoints(store, "stages/teacher").load() == b"newest"
    assert left == []


def test_who_shows_something_waits_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAGTKD_STORAGE_PATIENCE", raising=False)

    def call() -> str:
        raise OSError(errno.ETIMEDOUT, "timed out")

    with (
        patience_of(0.02),
        pytest.raises(StorageLostError, match=r"cannot read x: .*; tried for 0 s"),
    ):
        patiently(call, "s3://b/p", "read x")
