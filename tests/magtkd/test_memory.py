from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd.artifacts import Store
from magtkd.config import Config
from magtkd.errors import StageMemoryError
from magtkd.memory import memory_named
from magtkd.pipeline import run_chain

MakeConfig = Callable[..., Config]


def test_a_stage_that_does_not_fit_is_named_with_its_sizes(
    tmp_path: Path, tiny_config: MakeConfig
) -> None:
    config = tiny_config({"audio.hidden_dim": 2**45, "audio.batch_size": 13})  # weights of 1 PB
    message = (
        r"^audio: out of memory with batch_size 13, hidden_dim 35184372088832, encoder features: "
        r".*allocate.*; lower audio\.batch_size, with audio\.accumulation raised"
    )
    with pytest.raises(StageMemoryError, match=message) as caught:
        run_chain(config, Store(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "artifacts/audio").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB in all"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_what_libraries_say_of_memory_is_known(error: Exception, tiny_config: MakeConfig) -> None:
    said = re.escape(str(error)) or "no memory is left"
    with (
        pytest.raises(StageMemoryError, match=f"teacher: out of memory with .*: {said}; lower"),
        memory_named("teacher", tiny_config().teacher),
    ):
        raise error


def test_other_errors_pass(tiny_config: MakeConfig) -> None:
    with (
        pytest.raises(RuntimeError, match="shapes do not match"),
        memory_named("teacher", tiny_config().teacher),
    ):
        raise RuntimeError("shapes do not match")
