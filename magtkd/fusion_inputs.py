"""What the fusion stage reads, and what of its section is in its key. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magtkd.config import FusionConfig
from magtkd.errors import ConfigError, DataError

__all__ = ["MODALITY_OF", "fusion_reads", "initial_fingerprint", "keyed_fusion"]

MODALITY_OF = {"teacher": "text", "audio": "audio", "video": "video"}
"""The modality of each stage that fusion may read."""


def fusion_reads(
    reads: Mapping[str, tuple[str, ...]], section: FusionConfig, with_features: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """What each stage reads, without the stages that this fusion does not need.

    Args:
        reads: what each stage would read if all modalities were fused, fusion last.
        section: the fusion stage's section.
        with_features: the modalities that the table has features of.

    Raises:
        DataError: a modality that is to be fused is not there.
    """
    modalities = _present(reads, section, with_features)
    if section.inputs == "table":
        return {"data": (), "fusion": ("data",)}
    own = tuple(stage for stage in reads["fusion"] if MODALITY_OF.get(stage) in modalities)
    needed, waiting = set[str](), ["data", *own]
    while waiting:
        stage = waiting.pop()
        needed.add(stage)
        waiting.extend(reads[stage])
    kept = {stage: of_stage for stage, of_stage in reads.items() if stage in needed}
    return kept | {"fusion": tuple(stage for stage in kept if stage in {"data", *own})}


def _present(
    reads: Mapping[str, tuple[str, ...]], section: FusionConfig, with_features: Sequence[str]
) -> tuple[str, ...]:
    """The modalities that are fused."""
    if section.inputs == "table":
        there, where = tuple(with_features), "the table has features of"
    else:
        there = tuple(MODALITY_OF[stage] for stage in reads["fusion"] if stage in MODALITY_OF)
        where = "the stages make"
    wanted = section.fused_modalities or there
    missing = [modality for modality in wanted if modality not in there]
    if missing or not wanted:
        raise DataError(
            f"fusion.modalities is {section.modalities}, but {where} "
            f"{', '.join(there) or 'nothing'}; leave out {', '.join(missing) or 'fusion.inputs'}"
        )
    return wanted


def keyed_fusion(section: FusionConfig, with_features: Sequence[str]) -> dict[str, Any]:
    """The section as it is in the key: by what it does, not by how it is written.

    Raises:
        ConfigError: `initial` cannot be read.
    """
    keyed: dict[str, Any] = section.model_dump(mode="json")
    keyed["initial"] = initial_fingerprint(section.initial)
    # Where stages are read, their keys say which.
    in_table = [name for name in with_features if name in (section.fused_modalities or (name,))]
    keyed["modalities"] = in_table if section.inputs == "table" else None
    return keyed


def initial_fingerprint(initial: str | None) -> str | None:
    """SHA-256 of the weights that a fusion starts from.

    Raises:
        ConfigError: the file cannot be read.
    """
    if initial is None:
        return None
    try:
        with Path(initial).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"fusion.initial: {initial}: cannot be read: {error.strerror}; give the path of a "
            "file of weights, or null"
        ) from None
