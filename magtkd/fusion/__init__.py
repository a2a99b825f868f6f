"""Models that fuse the modalities of each utterance, and their loss."""

from magtkd.fusion.concat import Concat
from magtkd.fusion.loss import fusion_loss
from magtkd.fusion.magt import MAGT
from magtkd.fusion.modalities import FusionOutput

__all__ = ["MAGT", "Concat", "FusionOutput", "fusion_loss"]
