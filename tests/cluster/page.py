"""The commands of `docs/cluster.md`, which tests run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["commands", "section"]

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def section(name: str) -> str:
    """The text of a section of the page."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def commands(name: str) -> list[str]:
    """The lines of the `sh` blocks of a section, comments left out, continued lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", section(name), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
