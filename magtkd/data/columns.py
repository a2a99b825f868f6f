"""The schema of a table of conversations, and how a source's columns become it.

What can be read without loss is read: other integer widths, large or dictionary-coded strings,
numbers as names, feature lists of equal width. Everything else is refused.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.errors import DataError, and_more, first_line, shorten

__all__ = [
    "FEATURES",
    "MODALITIES",
    "NO_LABEL",
    "REQUIRED",
    "SCHEMA",
    "SPLITS",
    "codes_of",
    "conform",
    "feature_matrix",
    "feature_widths",
    "features_column",
    "list_matrix",
]

MODALITIES = ("text", "audio", "video")
SPLITS = ("train", "dev", "test")
NO_LABEL = -100
"""The index of the label of an utterance that has none: it is context, in no loss and no metric."""
FEATURES = {modality: f"{modality}_features" for modality in MODALITIES}

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("dialogue_id", pa.string()),
        ("utterance_id", pa.int32()),
        ("speaker", pa.string()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("audio_path", pa.string()),
        ("video_path", pa.string()),
        # In a validated table these are fixed_size_list<float32> of any width.
        ("text_features", pa.list_(pa.float32())),
        ("audio_features", pa.list_(pa.float32())),
        ("video_features", pa.list_(pa.float32())),
    ]
)
REQUIRED = ("split", "dialogue_id", "utterance_id", "speaker", "text", "label")
_MAY_BE_EMPTY = ("text", "label", "start", "end", "audio_path", "video_path")


def conform(table: pa.Table, source: str) -> pa.Table:
    """The schema's columns of a table, in its order and types; other columns are left out.

    Missing feature values become NaN, missing texts become empty, blank labels become null.

    Raises:
        DataError: a column is missing, duplicated, or of the wrong type.
    """
    _check_names(table.column_names, source)
    _check_encoding(table, source)
    columns = {
        field.name: _conform_column(field, _one_array(table.column(field.name)), source)
        for field in SCHEMA
        if field.name in table.column_names
    }
    columns["text"] = pc.fill_null(columns["text"], "")
    label = columns["label"]
    is_blank = pc.equal(pc.utf8_trim_whitespace(label), "")
    columns["label"] = pc.if_else(is_blank, pa.scalar(None, pa.string()), label)
    return pa.table(columns)


def _check_names(names: list[str], source: str) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"{source}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it has {and_more(names, 20) or 'none'}; rename or add (text may be empty)"
        )
    twice = [name for name in SCHEMA.names if names.count(name) > 1]
    if twice:
        raise DataError(f"{source}: has the column {twice[0]} more than once; keep one")


def _check_encoding(table: pa.Table, source: str) -> None:
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{source}: the table is damaged: {first_line(error)}; write it again"
        ) from None


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = pa.concat_arrays(combined.chunks)
    if pa.types.is_dictionary(combined.type):
        combined = combined.dictionary_decode()
    return combined


def _conform_column(field: pa.Field, array: pa.Array, source: str) -> pa.Array:
    if field.name in FEATURES.values():
        return features_column(_feature_values(field.name, array, source))
    if pa.types.is_null(array.type) and field.name in _MAY_BE_EMPTY:
        return array.cast(field.type)
    if not _is_readable(field.type, array.type):
        raise DataError(
            f"{source}: column {field.name}: its type is {shorten(str(array.type))}; cast it to "
            f"{field.type}"
        )
    try:
        return array.cast(field.type)
    except pa.ArrowInvalid as error:
        reason = first_line(error)
        if pa.types.is_string(field.type) and not pa.types.is_integer(array.type):
            reason = "its bytes are not UTF-8"
        raise DataError(f"{source}: column {field.name}: {reason}; keep to {field.type}") from None


def _is_readable(wanted: pa.DataType, given: pa.DataType) -> bool:
    whole = pa.types.is_integer(given)
    if wanted == pa.string():
        kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
        return bool(whole or any(getattr(pa.types, f"is_{kind}")(given) for kind in kinds))
    if wanted == pa.int32():
        return bool(whole)
    return bool(whole or pa.types.is_floating(given))


def _feature_values(name: str, array: pa.Array, source: str) -> npt.NDArray[np.float32]:
    """A features column as [utterances, width], NaN where something is missing."""
    _check_feature_type(name, array.type, source)
    if len(array) == 0:
        fixed = pa.types.is_fixed_size_list(array.type)
        return np.empty((0, array.type.list_size if fixed else 1), np.float32)
    width = _width(name, array, source)
    valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(array).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        values = values.astype(np.float32, copy=False).reshape(-1, width)
    if valid.all():
        return cast(npt.NDArray[np.float32], values)
    matrix = np.full((len(array), width), np.nan, np.float32)
    matrix[valid] = values
    return matrix


def _check_feature_type(name: str, given: pa.DataType, source: str) -> None:
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not (any(is_list(given) for is_list in lists) and pa.types.is_floating(given.value_type)):
        raise DataError(
            f"{source}: column {name}: its type is {shorten(str(given))}; "
            "cast it to a fixed_size_list of float32, or leave the column out"
        )


def _width(name: str, array: pa.Array, source: str) -> int:
    widths = pc.list_value_length(array)
    known = pc.unique(widths).drop_null().to_pylist()
    if not known:
        raise DataError(f"{source}: column {name}: it is empty in every row; leave it out")
    if len(known) > 1:
        other = int(pc.index(widths, known[1]).as_py())
        raise DataError(
            f"{source}: column {name}: {known[0]} values in the first row but {known[1]} in row "
            f"{other + 1}; one width is needed, such as the mean over frames"
        )
    if known[0] == 0:
        raise DataError(f"{source}: column {name}: its lists have no values; leave it out")
    return int(known[0])


def features_column(values: npt.NDArray[Any]) -> pa.Array:
    """A [utterances, width] array as a fixed_size_list<float32> column; a view if it is one."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


def feature_matrix(table: pa.Table, modality: str) -> npt.NDArray[np.float32]:
    """The features of a modality as [utterances, width], float32; see `list_matrix`.

    Args:
        table: a validated or prepared table.
        modality: `text`, `audio` or `video`, whose features the table has.
    """
    return list_matrix(table, FEATURES[modality])


def list_matrix(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    """A column of float32 lists of one width as [utterances, width].

    A view where the column is in one piece, and then not to be written to: features that came
    through shared memory stay there.
    """
    column = table.column(name)
    array = column.chunk(0) if column.num_chunks == 1 else _one_array(column)
    flat = array.flatten().to_numpy(zero_copy_only=True)
    return cast(npt.NDArray[np.float32], flat.reshape(-1, column.type.list_size))


def feature_widths(table: pa.Table) -> dict[str, int]:
    """The width of each modality's features, for those that the table has."""
    return {
        modality: int(table.schema.field(name).type.list_size)
        for modality, name in FEATURES.items()
        if name in table.column_names
    }


def codes_of(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """[num_rows] the number of each row's value, by first occurrence."""
    encoded = column.combine_chunks().dictionary_encode()
    return cast(npt.NDArray[np.int64], encoded.indices.to_numpy().astype(np.int64))
