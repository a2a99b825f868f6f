"""The trained stages: one file each, all of the same shape."""

from magtkd.stages.session import artifact_of, open_session

__all__ = ["artifact_of", "open_session"]
