from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from magtkd.config import Config, TeacherConfig, with_values
from magtkd.errors import StageMemoryError
from magtkd.memory import MemoryPeak, check_device_memory, memory_named
from magtkd.pipeline import run_chain
from magtkd.store import Store

MakeConfig = Callable[..., Config]


def test_a_stage_that_does_not_fit_is_named_with_its_sizes(
    tmp_path: Path, tiny_config: MakeConfig
) -> None:
    config = tiny_config({"audio.batch_size": 13})
    audio = config.audio.model_copy(update={"hidden_dim": 2**45})  # weights of 1 PB, out of bounds
    config = config.model_copy(update={"audio": audio})
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
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
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


def test_what_helps_is_named_as_far_as_it_is_not_done(tiny_config: MakeConfig) -> None:
    section = tiny_config(
        {"teacher.encoder": "tiny", "teacher.gradient_checkpointing": True, "teacher.lora": {}}
    ).teacher

    def advice(section: TeacherConfig) -> str:
        with pytest.raises(StageMemoryError) as caught, memory_named("teacher", section):
            raise MemoryError
        return str(caught.value)

    plain = advice(section.model_copy(update={"gradient_checkpointing": False, "lora": None}))
    for option in ("batch_size", "accumulation", "precision=bfloat16", "max_length"):
        assert f"teacher.{option}" in plain
        assert f"teacher.{option}" in advice(section)
    for option in ("gradient_checkpointing=true", "lora.rank=8"):
        assert f"set teacher.{option}" in plain
        assert option not in advice(section)


TEXT = {"encoder": "tiny", "prompt_length": 5, "max_length": 64}
CLIPS = {"encoder": "some/model"}
LEAST = {"batch_size": 1, "precision": "bfloat16"}


@pytest.mark.parametrize(
    ("stage", "values", "expected"),
    [
        ("fusion", {}, {"batch_size", "accumulation", "precision"}),
        ("fusion", LEAST, set()),
        ("teacher", TEXT | LEAST, {"max_length", "gradient_checkpointing", "lora", "train"}),
        (
            "teacher",
            TEXT | LEAST | {"lora": {"rank": 2}},
            {"max_length", "gradient_checkpointing", "train"},
        ),
        ("teacher", TEXT | LEAST | {"train": "prompt"}, {"max_length"}),
        ("teacher", TEXT | LEAST | {"train": "prompt", "max_length": 16}, set()),
        ("teacher", TEXT | LEAST | {"prompt_length": 32, "train": "prompt"}, set()),
        ("audio", CLIPS | LEAST, {"max_samples", "gradient_checkpointing", "lora", "train"}),
        (
            "audio",
            CLIPS | LEAST | {"gradient_checkpointing": True},
            {"max_samples", "lora", "train"},
        ),
        (
            "audio",
            CLIPS | {"train": "head"},
            {"batch_size", "accumulation", "precision", "max_samples"},
        ),
        ("video", CLIPS | LEAST, {"gradient_checkpointing", "lora", "train"}),
        ("video", CLIPS | LEAST | {"train": "head"}, set()),
    ],
)
def test_what_is_named_is_accepted(
    tiny_config: MakeConfig, stage: str, values: dict[str, Any], expected: set[str]
) -> None:
    config = tiny_config({f"{stage}.{name}": value for name, value in values.items()})
    with (
        pytest.raises(StageMemoryError, match=r"give it a larger device with") as caught,
        memory_named(stage, getattr(config, stage)),
    ):
        raise MemoryError
    ways = str(caught.value).rpartition("; ")[2]
    named = set()
    for change in _changes(ways, config):
        with_values(config, change)
        named.add(next(iter(change)).split(".")[1])
    assert named == expected


def _changes(ways: str, config: Config) -> Iterator[dict[str, Any]]:
    """What each way out changes in a configuration."""
    for place, name in re.findall(r"lower (\w+)\.(\w+)", ways):
        yield {f"{place}.{name}": getattr(getattr(config, place), name) - 1}
    for place in re.findall(r"with (\w+)\.accumulation raised", ways):
        yield {f"{place}.accumulation": 2}
    for name, value, without in re.findall(r"set ([\w.]+)=(\w+)(?: \(without (.*?)\))?", ways):
        nothing = {"gradient_checkpointing": False, "lora": None} if without else {}
        place = name.partition(".")[0]
        yield {name: value} | {f"{place}.{other}": unset for other, unset in nothing.items()}


def test_the_peak_of_a_block_is_its_own() -> None:
    cpu = torch.device("cpu")
    with MemoryPeak(cpu) as large:
        held = bytearray(64 << 20)
        held[::4096] = b"1" * len(held[::4096])
        del held
    with MemoryPeak(cpu) as small:
        pass
    assert large.num_bytes - small.num_bytes > 32 << 20


def test_weights_that_do_not_fit_a_device_are_refused_before_training() -> None:
    """RoBERTa-large, 354 M weights: 7.1 GB in full, 1.4 GB frozen (docs/encoders.md)."""
    section = TeacherConfig(encoder="roberta-large")
    check_device_memory("teacher", section, 354_000_000, 0, 8_000_000_000)
    check_device_memory("teacher", section, 0, 354_000_000, 1_500_000_000)
    message = (
        r"^teacher: its weights and optimizer take 7\.1 GB, and the device has 6\.0 GB; "
        r"set teacher\.lora\.rank=8, set teacher\.train=prompt .*, or give it a larger device"
    )
    with pytest.raises(StageMemoryError, match=message):
        check_device_memory("teacher", section, 354_000_000, 0, 6_000_000_000)
