"""Which errors of a tracking store pass by themselves, and which it would give again."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from magtkd.errors import MagtkdError, StorageLostError, TrackingError
from tune.redact import reason, redact
from tune.tracking.address import WAY_OUT

__all__ = ["NotMlflowError", "in_our_words"]

_CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_OTHER = "check the address, and what stands before the server"
_ANSWERS = {
    "UNAUTHENTICATED": ("asks who you are (401)", _CREDENTIALS),
    "PERMISSION_DENIED": ("does not let you in (403)", f"{_CREDENTIALS}, of who may write"),
    "ENDPOINT_NOT_FOUND": ("does not answer as MLflow does", _OTHER),
}


_ANY = {"error_code": ""}


class NotMlflowError(Exception):
    """What answers is not MLflow."""


def in_our_words(uri: str, error: Exception) -> MagtkdError:
    """An error of a tracking store as one line: a `TrackingError` where another try would give the
    same, a `StorageLostError` where it may pass."""
    if isinstance(error, MagtkdError):
        return error
    place, refusal = f"tracking at {redact(uri)}", _refusal(error)
    if refusal is None:
        return StorageLostError(f"{place}: {reason(error)}", "try again when it answers")
    return TrackingError(f"{place}: {refusal[0]}", refusal[1])


def _refusal(error: Exception) -> tuple[str, str] | None:
    """What is refused for good, and the way out; None where it may pass."""
    chain, text = list(_chain(error)), str(error)
    if "MLFLOW_ALLOW_FILE_STORE" in text:  # its own message is too long to reach the way out
        return (
            "a folder of files, to which this MLflow does not write",
            f"{WAY_OUT}, or set MLFLOW_ALLOW_FILE_STORE=true",
        )
    why, way_out = "", ""
    # An error that was made of no other is of an answer; those of connections have a cause.
    if len(chain) == 1 and (code := getattr(error, "error_code", "")):
        why, way_out = _ANSWERS.get(code, ("", ""))
        # A page of a proxy, or JSON of something else: MLflow's errors have a code.
        if text.startswith("API request") or "error_code" not in getattr(error, "json", _ANY):
            why, way_out = why or "does not answer as MLflow does", way_out or _OTHER
    elif isinstance(error, NotMlflowError):
        why, way_out = "does not answer as MLflow does", _OTHER
    elif any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        why, way_out = "its certificate is not trusted", "name the authority in REQUESTS_CA_BUNDLE"
    elif any(isinstance(one, ImportError) for one in chain) or "Can't load plugin" in text:
        why, way_out = "cannot be opened", "install the database's driver"
    elif "is not a database" in text:
        why, way_out = "cannot be opened", "move that file away, or name another"
    return (f"{why}: {reason(error)}", way_out) if why else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
