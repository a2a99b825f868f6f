"""The commands of `docs/cluster.md`, which tests run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["commands"]

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def commands(section: str) -> list[str]:
    """The lines of the `sh` blocks of a section, comments left out, continued lines joined."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
