"""The training signal of probing and tuning (arXiv 2403.04321)."""

from .contrastive import MatchingPairs, calibration_loss, contrastive_loss, recognition_loss
from .denoising import denoising_loss
from .grounding import cardinality_error, grounding_losses
from .probing import Phrases, probing_losses
from .score_weighted import score_weighted_loss
from .weights import LossWeights, weighted_total

__all__ = [
    "LossWeights",
    "MatchingPairs",
    "Phrases",
    "calibration_loss",
    "cardinality_error",
    "contrastive_loss",
    "denoising_loss",
    "grounding_losses",
    "probing_losses",
    "recognition_loss",
    "score_weighted_loss",
    "weighted_total",
]
