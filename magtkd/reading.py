"""What of a section is read: declared once, by what reads it.

From these declarations follow the keys of the stages (what is not read is in none), the warnings
that a setting has no effect, the table in docs/fusion.md, and the fields' descriptions in the JSON
schema. Imports nothing, since the configuration itself is made with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["EVERYTHING", "Choice", "Given", "Reads", "Why", "always", "is_on"]


@dataclass(frozen=True)
class Given:
    """What a stage is given, as far as it decides what the stage reads of its section. The defaults
    are those under which most is read.

    Args:
        modalities: those that are fused, the anchor first.
        has_teacher: whether there is a teacher that a student could learn from.
        has_features: whether the table has features of any modality.
        has_dev: whether the table has a dev split.
        has_clips: whether a stage decodes clips.
    """

    modalities: tuple[str, ...] = ("text", "audio", "video")
    has_teacher: bool = True
    has_features: bool = True
    has_dev: bool = False
    has_clips: bool = True


EVERYTHING = Given()
"""What is not read with this is not read with anything else."""

Why = Callable[[Any, Given], str | None]
"""Why a field of a section is not read under the section's values; None where it is read."""

Reads = Mapping[str, Why]
"""The fields that a variant reads, each with what else that takes."""


def always(section: Any, given: Given) -> str | None:
    """The field is read whatever the other values are."""
    return None


def is_on(weight: str) -> Why:
    """The field is read where a weight of the same section is not 0."""

    def why(section: Any, given: Given) -> str | None:
        return None if getattr(section, weight) else f"{weight} is 0"

    return why


@dataclass(frozen=True)
class Choice:
    """A field whose value chooses one of several variants. A field of the section that some of them
    read is not read by the others; a field that none of them names is no affair of this choice.

    Args:
        field: the field that chooses.
        variants: what each variant reads, by the variant's name.
        variant_of: the variant that a value of the field chooses; by default the one of that name.
    """

    field: str
    variants: Mapping[str, Reads]
    variant_of: Callable[[Any], str] = str

    def readers(self, name: str) -> tuple[str, ...]:
        """The variants that read a field."""
        return tuple(variant for variant, reads in self.variants.items() if name in reads)

    def why_unread(self, name: str, section: Any, given: Given) -> str | None:
        """Why a field that some variants read is not read under the section's values; None where it
        is."""
        value = getattr(section, self.field)
        reads = self.variants[self.variant_of(value)]
        if name not in reads:
            return f"{self.field} is {value}; read by {', '.join(self.readers(name))}"
        return reads[name](section, given)
