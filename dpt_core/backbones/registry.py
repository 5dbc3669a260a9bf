"""Which family a diffusers pipeline belongs to: one line each."""

from __future__ import annotations

from typing import Any

from .base import Backbone
from .stable_diffusion import StableDiffusion

FAMILIES = {"UNet2DConditionModel": StableDiffusion}
"""Class of the denoising network → its family."""


def backbone_of(pipeline: Any) -> Backbone:
    """The backbone of a diffusers pipeline.

    Args:
        pipeline: has `unet` or `transformer`, and `scheduler`.

    Raises:
        ValueError: no family reads it.
    """
    network = getattr(pipeline, "unet", None)
    if network is None:
        network = getattr(pipeline, "transformer", None)
    name = type(network).__name__
    if name not in FAMILIES:
        raise ValueError(
            f"{type(pipeline).__name__} has no denoising network that DPT can read (found {name}, "
            f"expected {', '.join(FAMILIES)})"
        )
    return FAMILIES[name](pipeline)
