"""Discriminative Probing and Tuning for text-to-image generation (arXiv 2403.04321).

A small transformer, the adapter, reads a feature map from inside a diffusion UNet and says how
well a noisy latent agrees with a text and where things are. Importing this package costs nothing
beyond torch.
"""

from .adapter import AdapterOutput, DiscriminativeAdapter
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .config import TAPS, AdapterConfig
from .correction import PRESETS, CorrectedLatent, Correction, correct
from .score import alignment_score

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "TAPS",
    "AdapterConfig",
    "AdapterOutput",
    "Checkpoint",
    "CheckpointError",
    "CorrectedLatent",
    "Correction",
    "DiscriminativeAdapter",
    "alignment_score",
    "correct",
    "load_checkpoint",
    "save_checkpoint",
]
