"""The training signal of probing and tuning (arXiv 2403.04321)."""

from .contrastive import MatchingPairs, contrastive_loss, recognition_loss, verdict_loss
from .denoising import box_denoising_loss, denoising_loss, signal_to_noise
from .grounding import cardinality_error, grounding_losses
from .probing import Phrases, probing_losses
from .weights import LossWeights, weighted_total

__all__ = [
    "LossWeights",
    "MatchingPairs",
    "Phrases",
    "box_denoising_loss",
    "cardinality_error",
    "contrastive_loss",
    "denoising_loss",
    "grounding_losses",
    "probing_losses",
    "recognition_loss",
    "signal_to_noise",
    "verdict_loss",
    "weighted_total",
]
