"""Losses on the valid utterances of a batch."""

from magtkd.losses.classification import cross_entropy
from magtkd.losses.distillation import feature_loss, logit_loss

__all__ = ["cross_entropy", "feature_loss", "logit_loss"]
