"""Tables of conversations: reading, checking, preparing. Batches are in `conversations` (torch)."""

from magtkd.data.columns import (
    FEATURES,
    MODALITIES,
    NO_LABEL,
    SCHEMA,
    SPLITS,
    feature_matrix,
    feature_widths,
    list_matrix,
)
from magtkd.data.new import prepare_new
from magtkd.data.parquet import read_parquet, write_parquet
from magtkd.data.prepare import Metadata, prepare, read_metadata
from magtkd.data.reading import media_root, read_corpus, read_path
from magtkd.data.synthetic import make_synthetic
from magtkd.data.table import Corpus, fingerprint, make_corpus, validate_table

__all__ = [
    "FEATURES",
    "MODALITIES",
    "NO_LABEL",
    "SCHEMA",
    "SPLITS",
    "Corpus",
    "Metadata",
    "feature_matrix",
    "feature_widths",
    "fingerprint",
    "list_matrix",
    "make_corpus",
    "make_synthetic",
    "media_root",
    "prepare",
    "prepare_new",
    "read_corpus",
    "read_metadata",
    "read_parquet",
    "read_path",
    "validate_table",
    "write_parquet",
]
