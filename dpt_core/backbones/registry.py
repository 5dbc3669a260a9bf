"""Which family a diffusers pipeline belongs to: one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from .base import Backbone
from .mmdit import Flux, QwenImage, StableDiffusion3
from .stable_diffusion import StableDiffusion
from .z_image import ZImage

FAMILIES = {
    "UNet2DConditionModel": StableDiffusion,
    "SD3Transformer2DModel": StableDiffusion3,
    "FluxTransformer2DModel": Flux,
    "QwenImageTransformer2DModel": QwenImage,
    "ZImageTransformer2DModel": ZImage,
}
"""Class of the denoising network → its family."""


def backbone_of(pipeline: Any) -> Backbone:
    """The backbone of a diffusers pipeline.

    Args:
        pipeline: has `unet` or `transformer`, and `scheduler`.

    Raises:
        ValueError: no family reads it.
    """
    network = getattr(pipeline, network_name(pipeline), None)
    name = type(network).__name__
    if name not in FAMILIES:
        raise ValueError(
            f"{type(pipeline).__name__} has no denoising network that DPT can read (found {name}, "
            f"expected {', '.join(FAMILIES)}): use a pipeline of one of these families"
        )
    return FAMILIES[name](pipeline)


def family_of(network: Any) -> str | None:
    """The family of a denoising network, None where nobody reads it."""
    known = FAMILIES.get(type(network).__name__)
    return known.family if known else None


def left_out(folder: str | Path) -> dict[str, None]:
    """The parts that a diffusers directory was saved without, as SD 3 without its T5.

    Diffusers wants to be told of some of them again where it loads the directory.
    """
    index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    return {name: None for name, value in index.items() if value == [None, None]}


def modules_of(pipeline: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline by name; `components` refuses one that lacks an optional part."""
    names = [name for name in pipeline.config if not name.startswith("_")]
    parts = {name: getattr(pipeline, name, None) for name in names}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def network_name(pipeline: Any) -> str:
    """What a pipeline calls its denoising network."""
    return "transformer" if getattr(pipeline, "unet", None) is None else "unet"
