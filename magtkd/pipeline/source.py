"""What planning needs to know of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow.compute as pc

from magtkd.data import MODALITIES, Corpus, feature_widths
from magtkd.media import find_absent, media_fingerprints

__all__ = ["ANY_TABLE", "Source", "source_of"]


@dataclass(frozen=True)
class Source:
    """What planning needs to know of a table: its fingerprint, the modalities that come as
    features, for those that come as clips a hash of the files (`media_fingerprints`), for those
    none of whose files is there the message of the error, and whether it has a dev split of its
    own."""

    fingerprint: str
    with_features: tuple[str, ...]
    media: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    has_dev: bool = False


ANY_TABLE = Source("", MODALITIES, dict.fromkeys(("audio", "video"), ""))
"""A table that has everything: what is not read with it is not read with any."""


def source_of(corpus: Corpus) -> Source:
    """What planning needs to know of a corpus."""
    media = media_fingerprints(corpus.table, corpus.media)
    absent = {
        modality: f"data.media: {corpus.media} has none of the table's files for {modality}, such "
        f"as {path}; give the folder that the paths are relative to"
        for modality, path in find_absent(corpus.table, corpus.media).items()
    }
    has_dev = bool(pc.any(pc.equal(corpus.table["split"], "dev")).as_py())
    return Source(corpus.fingerprint, tuple(feature_widths(corpus.table)), media, absent, has_dev)
