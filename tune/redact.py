"""What of addresses and of errors may be shown: no passwords, no tokens, one line."""

from __future__ import annotations

import re

from magtkd.errors import first_line

__all__ = ["reason", "redact"]

MAX_LENGTH = 200


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
    """Why something failed, in one short line: the system's own words, where it is at the root, or
    those of the root where the error's own are too long."""
    cause: BaseException | None = error
    root = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return redact(cause.strerror)
        root, cause = cause, cause.__cause__ or cause.__context__
    line = redact(first_line(error))
    return (line if len(line) <= MAX_LENGTH else redact(first_line(root)))[:MAX_LENGTH]
