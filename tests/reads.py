"""Whether a value is read, from the names that are not."""

from __future__ import annotations

from magtkd.config import Config, names_of
from magtkd.pipeline import Source, unread_names


def is_read(config: Config, name: str, source: Source | None = None) -> bool:
    """Whether another value under a dotted name could change a result, the other values being as
    they are. What is in a section that is null counts as read where the section is: a value there
    makes the section. A section is read where anything in it is."""
    names = [known for known in names_of() if f"{known}.".startswith(f"{name}.")]
    assert names, f"{name}: no such name"
    unread = unread_names(config, source)
    return any(not _is_in(known, set(unread)) for known in names)


def _is_in(name: str, unread: set[str]) -> bool:
    """Whether a name or a section around it is not read; a section that is null has no names."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in unread for end in range(1, len(parts) + 1))
