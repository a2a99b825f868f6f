"""What people, editors and machines make of a file."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TEXTS = st.sampled_from(
    [
        "",
        " ",
        "null",
        "010",
        "1e5",
        "1_000",
        "nan",
        "-.inf",
        "2024-01-31",
        "12:30:00",
        "${name}",
        "${oc.env:HOME}",
        "${missing.key}",
        "???",
        "a\nb",
        "\x1b[2Jgone",
        "\x00",
        "\u2028",
        "\ud83d",
        "héé",
        "😀",
        "'\"`,;\t|",
        "../..",
        "x" * 2000,
    ]
) | st.text(max_size=8)
NUMBERS = st.sampled_from(
    [
        *(0, -1, 1, 2**31, 2**53 + 1, -(2**63), 10**31, 10**400),
        *(0.1, 1e-320, 1e308, -0.0, float("nan"), float("inf")),
    ]
)


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.integers() | st.floats()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS, inner, max_size=3)
        | st.builds(_deep, inner, st.sampled_from([5, 120, 3000]))
    ),
    max_leaves=4,
)
"""Values as JSON and YAML have them, most of them not what is wanted."""


RARELY = st.sampled_from([False] * 7 + [True])


@st.composite
def torn(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's bytes: as they are, cut, with bytes changed or put in, or a part there twice."""
    for _ in range(draw(st.integers(0, 2))):
        start, end = sorted(draw(st.integers(0, len(content))) for _ in range(2))
        how = draw(st.sampled_from(["cut", "lose", "insert", "change", "repeat", "fill"]))
        if how == "cut":
            content = content[:start]
        elif how == "lose":
            content = content[:start] + content[end:]
        elif how == "insert":
            content = content[:start] + draw(st.binary(max_size=6)) + content[start:]
        elif how == "change":
            new = draw(st.binary(min_size=1, max_size=6))
            content = content[:start] + new + content[start + len(new) :]
        elif how == "repeat":
            content = content[:end] + content[start:]
        else:  # as a disk leaves a block that it could not read
            content = content[:start] + bytes(end - start) + content[end:]
    return content
