"""Which family a wired model belongs to, and whether an adapter can read it."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ....dpt_core.backbones.base import check_taps
from ....dpt_core.config import AdapterConfig
from .base import HostBackbone
from .unet import UNetBackbone

FAMILIES: dict[type, type[HostBackbone]] = {UNetModel: UNetBackbone}
"""Class of the host's network → its family."""

COMPILE_KEY = "torch.compile"
"""Key of the wrapper that the host's TorchCompileModel node leaves on a model."""


def backbone_of(base_model: Any) -> HostBackbone:
    """The backbone of the host's BaseModel.

    Raises:
        ValueError: no family reads it.
    """
    network = base_model.diffusion_model
    for kind, family in FAMILIES.items():
        if isinstance(network, kind):
            return family(base_model)
    raise ValueError(
        "DPT adapters read the UNet of Stable Diffusion 1.x, 2.x or SDXL; the wired model is a "
        f"{type(network).__name__}. Wire a model of the family the adapter was trained on"
    )


def check_backbone(model: Any, config: AdapterConfig) -> None:
    """Check that an adapter can read a wired model.

    Args:
        model: the host's ModelPatcher.
        config: the adapter's config.

    Raises:
        ValueError: nothing is wired, no family reads it, another tap or width, or a compiled model.
    """
    if model is None:
        raise ValueError("model is missing: wire the MODEL that the adapter was trained on")
    network = model.get_model_object("diffusion_model")
    parts = [*network.modules(), *model.object_patches.values()]
    compiled = any(hasattr(part, "_orig_mod") for part in parts) or any(
        COMPILE_KEY in wrappers for wrappers in model.wrappers.values()
    )
    if compiled:
        raise ValueError(
            "DPT cannot differentiate a compiled model: remove the TorchCompileModel node (or "
            "whatever compiles the model) in front of this one"
        )
    check_taps(backbone_of(model.model).taps(), config.tap, config.in_channels)
