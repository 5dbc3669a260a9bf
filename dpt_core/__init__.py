"""Discriminative Probing and Tuning for text-to-image generation (arXiv 2403.04321).

A small transformer, the adapter, reads a feature map from inside a diffusion UNet and says how
well a noisy latent agrees with a text and where things are. Importing this package costs nothing;
its names load torch when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import AdapterOutput, DiscriminativeAdapter
    from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
    from .config import TAPS, AdapterConfig
    from .correction import PRESETS, CorrectedLatent, Correction, correct
    from .score import alignment_score

__version__ = "0.1.0"

METHOD_VERSION = 3
"""Of what the method computes. It rises whenever the same weights, settings and seeds give other
pictures or scores, so that results of two versions are never mixed."""

_HOMES = {
    "adapter": ("AdapterOutput", "DiscriminativeAdapter"),
    "checkpoint": ("Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"),
    "config": ("TAPS", "AdapterConfig"),
    "correction": ("PRESETS", "CorrectedLatent", "Correction", "correct"),
    "score": ("alignment_score",),
}
"""Module → the public names that it holds."""

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


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first asked for (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
