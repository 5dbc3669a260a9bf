"""Metrics of pictures, each a function that stands alone.

Our own alignment score is :func:`dpt_core.reading.alignment_scores`.
"""

from .blip import Blip, blip_scores, load_blip
from .clip import Clip, clip_scores, load_clip
from .inception import (
    frechet_distance,
    inception_outputs,
    inception_score,
    load_inception,
)

__all__ = [
    "Blip",
    "Clip",
    "blip_scores",
    "clip_scores",
    "frechet_distance",
    "inception_outputs",
    "inception_score",
    "load_blip",
    "load_clip",
    "load_inception",
]
