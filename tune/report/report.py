"""A report: from the names of sweeps to the page and its figures."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from magtkd.errors import SweepError
from tune.report.blocks import Part
from tune.report.comparison import comparison_part
from tune.report.matplotlib_figures import write_figures
from tune.report.page import MARK, render
from tune.report.sections import sweep_part
from tune.report.subject import Subject

__all__ = ["check_output", "make_parts", "page_of", "write_all_figures"]


def make_parts(storage: str, names: Sequence[str]) -> list[Part]:
    """The parts of a report: one for each sweep, led by a comparison where there are several.

    Raises:
        SweepError: there is no such sweep, its ledger is damaged, or a name is given twice.
        StorageLostError: an object store does not answer or refuses.
    """
    for name in names:
        if names.count(name) > 1:
            raise SweepError(f"sweep {name!r}: given twice; name each once")
    subjects = [Subject.read(storage, name) for name in names]
    # Numbers that only a damaged ledger has are no reason for warnings on the terminal.
    with np.errstate(all="ignore"):
        parts = [sweep_part(subject) for subject in subjects]
        return [comparison_part(subjects), *parts] if len(subjects) > 1 else parts


def page_of(parts: Sequence[Part], watched: str | None = None) -> str:
    """The page of some parts; see `render`."""
    return render(parts, version=importlib.metadata.version("magtkd"), watched=watched)


def check_output(path: Path) -> None:
    """Refuse to replace a file that is no report.

    Raises:
        SweepError: it is another file.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(MARK)) != MARK.encode():
            raise SweepError(
                f"--out {path}: exists, and `magtkd report` did not write it; name another file"
            )


def write_all_figures(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Write the figures as PDF and SVG: in the folder, or of several parts in a folder of each.

    Raises:
        InputError: the folder cannot be written.
    """
    if len(parts) == 1:
        return write_figures(parts[0].charts, folder)
    written = []
    for part in parts:
        own = folder / part.title.removeprefix("Sweep ").replace(" ", "-")
        written += write_figures(part.charts, own)
    return written
