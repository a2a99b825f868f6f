"""The fusion models. To add one, add a file with what it reads, how it is built and its loss, and a
line in `MODELS`. Imports no torch."""

from magtkd.models.concat import Concat
from magtkd.models.magt import Magt
from magtkd.models.model import FusionModel, Sizes
from magtkd.models.sdt import Sdt

__all__ = ["MODELS", "FusionModel", "Sizes"]

MODELS: dict[str, FusionModel] = {
    model.name: model
    for model in (
        Magt(),
        Sdt(),
        Concat(),
    )
}
"""All fusion models by name."""
