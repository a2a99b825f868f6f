"""magtkd: the core trainer of MAGTKD (arXiv 2506.18716). Runs alone, without the search."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: processes that import this package should start quickly.
    if name == "Predictor":
        from magtkd.prediction import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
