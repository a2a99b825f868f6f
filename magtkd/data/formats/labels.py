"""Names of the labels that feature files have as numbers."""

from __future__ import annotations

from collections.abc import Iterable

from magtkd.errors import DataError, shorten

__all__ = [
    "ALPHABETICAL",
    "FOUR_CLASSES",
    "FOUR_NOTE",
    "IEMOCAP",
    "IEMOCAP_FOUR",
    "IEMOCAP_OTHERS",
    "ORDERS",
    "label_names",
]

IEMOCAP = {
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
}
"""IEMOCAP's six codes, in the order in which COSMIC, MMGCN and SDT number them."""

FOUR_CLASSES: dict[str, str | None] = {"excited": "happy", "frustrated": None}
"""What becomes of those of IEMOCAP's six that are not among the four; None: they are dropped."""

FOUR_NOTE = "four classes: excited is taken as happy, frustrated is dropped"
IEMOCAP_FOUR = tuple(name for name in IEMOCAP.values() if name not in FOUR_CLASSES)

IEMOCAP_OTHERS = frozenset({"dis", "fea", "oth", "sur", "xxx"})
"""IEMOCAP's codes that are not used: too rare, other, or without agreement."""

ORDERS = {
    "iemocap": tuple(IEMOCAP.values()),
    "meld": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    "emorynlp": ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared"),
}
ALPHABETICAL = {
    "iemocap": tuple(IEMOCAP[code] for code in sorted(IEMOCAP)),
    "meld": tuple(sorted(ORDERS["meld"])),
}
"""MAGTKD numbers labels alphabetically: IEMOCAP's by their codes."""


def label_names(
    numbers: Iterable[int],
    choice: str | None,
    orders: dict[str, tuple[str, ...]],
    by_count: dict[int, str],
    source: str,
) -> tuple[tuple[str, ...], str]:
    """The names of numbered labels, and how they were found.

    Args:
        numbers: those that occur.
        choice: a key of `orders`, names separated by commas, or None to go by their number.
        orders: names by data set.
        by_count: the data set with so many classes, where that is clear.

    Raises:
        DataError: the choice has too few names, or there is none and the number fits no data set.
    """
    there = sorted(set(numbers))
    if not there or there[0] < 0:
        raise DataError(f"{source}: labels are numbers from 0, but {there[:1]} is there")
    if choice is None:
        data_set = by_count.get(there[-1] + 1)
        if data_set is None:
            fits = [name for name, order in orders.items() if len(order) == there[-1] + 1]
            raise DataError(
                f"{source}: labels are numbers up to {there[-1]}, which fits "
                f"{' and '.join(fits) or 'no data set known here'}; choose --labels "
                f"{'|'.join(fits or orders)} or name them by --labels NAME,NAME,..."
            )
        return orders[data_set], f"label names are {data_set}'s, by their number"
    names = orders.get(choice) or tuple(name.strip() for name in choice.split(","))
    if len(names) <= there[-1] or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{source}: --labels {shorten(choice)}: label {there[-1]} needs {there[-1] + 1} "
            "different "
            f"names; name {'|'.join(orders)} or all of them"
        )
    return names, f"label names are {', '.join(names)}, as chosen"
