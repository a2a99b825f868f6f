"""Addresses of tracking stores, and what of them and of their errors may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["default_tracking_uri", "reason", "redact"]


def default_tracking_uri(storage: str | Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else an SQLite file in the storage folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(storage).resolve()}/mlflow.db"


def redact(text: str) -> str:
    """The text with user names, passwords and tokens in its addresses replaced by `***`."""
    text = re.sub(r"(?<!sqlite)(://)[^\s\"]*@", r"\1***@", text)
    return re.sub(
        r"([?&][^=&\s]*(?:pass|pwd|token|secret|key|sig|credential)[^=&\s]*=)[^&\s'\"]*",
        r"\1***",
        text,
        flags=re.IGNORECASE,
    )


def reason(error: BaseException) -> str:
    """Why something failed, in one short line: what the system said, where it is at the root."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return redact(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    lines = str(error).splitlines() or [type(error).__name__]
    return redact(lines[0])[:200]
