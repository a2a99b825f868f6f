"""Models that fuse the modalities of each utterance, and their losses."""

from magtkd.fusion.concat import Concat
from magtkd.fusion.loss import fusion_loss, prediction_loss, self_distillation_loss
from magtkd.fusion.magt import MAGT
from magtkd.fusion.modalities import FusionOutput
from magtkd.fusion.sdt import SDT

__all__ = [
    "MAGT",
    "SDT",
    "Concat",
    "FusionOutput",
    "fusion_loss",
    "prediction_loss",
    "self_distillation_loss",
]
