"""Errors: their parts, and that they arrive whole in another process."""

from __future__ import annotations

import pickle

import pytest

from magtkd.errors import (
    ArtifactError,
    DataError,
    DivergedError,
    MagtkdError,
    and_more,
    first_line,
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("t.csv: no rows"), "t.csv: no rows"),
        (DataError("t.csv: no rows", "add some"), "t.csv: no rows; add some"),
        (ArtifactError("a: damaged; or not", "delete a"), "a: damaged; or not; delete a"),
        (
            DivergedError("audio", 2, 3, float("nan")),
            "audio: diverged: the loss was nan in epoch 2, step 3; lower audio.learning_rate or "
            "audio.gradient_norm",
        ),
    ],
)
def test_an_error_arrives_whole_in_another_process(error: MagtkdError, message: str) -> None:
    assert str(error) == message
    # As pickle does it, and as Ray does it.
    for other in (pickle.loads(pickle.dumps(error)), type(error)(*error.args)):
        assert type(other) is type(error)
        assert str(other) == message
        assert (other.reason, other.way_out) == (error.reason, error.way_out)


def test_first_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("x" * 400)) == "x" * 300
    assert first_line(ValueError("")) == first_line(ValueError("\n")) == "ValueError"


def test_and_more() -> None:
    assert and_more(["a", "b"], 2) == "a, b"
    assert and_more(["a", "b", "c"], 2) == "a, b and 1 more"
    assert and_more(["a, 1", "b", "c"], 1, "; ") == "a, 1; and 2 more"
