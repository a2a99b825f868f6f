"""Losses on the valid utterances of a batch."""

from magtkd.losses.classification import cross_entropy
from magtkd.losses.distillation import divergence_loss, feature_loss, logit_loss

__all__ = ["cross_entropy", "divergence_loss", "feature_loss", "logit_loss"]
