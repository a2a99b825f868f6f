"""Paths that a data file names: they stay inside the folder that they are relative to."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from magtkd.errors import DataError, shorten

__all__ = ["inside"]


def inside(root: str | Path, relative: str) -> Path:
    """The path of a file that a data file names, below `root`. It need not exist.

    Args:
        root: the folder that the data file belongs to.
        relative: as in the data file; backslashes separate too, since such files are also written
            on Windows.

    Raises:
        DataError: it is empty or absolute, or leaves the folder by `..` or by a link.
    """
    windows = PureWindowsPath(relative)
    if not relative.strip() or "\0" in relative:
        raise _refused(root, relative, "is not the name of a file")
    if windows.drive or windows.root:
        raise _refused(root, relative, "is absolute")
    # The folder itself may be behind links; what it contains may not lead out of it.
    folder = Path(root).resolve()
    try:
        path = (folder / windows.as_posix()).resolve()
    except (OSError, RuntimeError):
        raise _refused(root, relative, "is a link to itself") from None
    if path == folder or not path.is_relative_to(folder):
        raise _refused(root, relative, "leads out of it")
    return path


def _refused(root: str | Path, relative: str, why: str) -> DataError:
    shown = shorten(ascii(relative))
    return DataError(
        f"{root}: the path {shown} {why}", "name files below this folder, relative to it"
    )
