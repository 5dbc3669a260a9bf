"""Which family a wired model belongs to, and whether an adapter can read it."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ....dpt_core.backbones.checks import check_family, check_taps
from ....dpt_core.config import AdapterConfig
from . import tokens
from .base import HostBackbone
from .unet import UNetBackbone

COMPILE_KEY = "torch.compile"
"""Key of the wrapper that the host's TorchCompileModel node leaves on a model."""


def backbone_of(base_model: Any) -> HostBackbone:
    """The backbone of the host's BaseModel.

    Raises:
        ValueError: no family reads it.
    """
    network = base_model.diffusion_model
    if isinstance(network, UNetModel):
        return UNetBackbone(base_model)
    if family := tokens.family_of(network):
        return tokens.TokenBackbone(base_model, family)
    raise ValueError(
        "DPT adapters read the UNet of Stable Diffusion 1.x, 2.x and SDXL and the transformers "
        f"{', '.join(tokens.FAMILIES)}; the wired model is a {type(network).__name__}. Wire a "
        "model of the family the adapter was trained on"
    )


def check_backbone(model: Any, config: AdapterConfig) -> None:
    """Check that an adapter can read a wired model.

    Args:
        model: the host's ModelPatcher.
        config: the adapter's config.

    Raises:
        ValueError: nothing is wired, no family reads it, another family, tap, width or text
            vector, a compiled model, or GGUF.
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
    if any(type(tensor).__name__ == "GGMLTensor" for tensor in network.parameters()):
        raise ValueError(
            "DPT cannot differentiate a GGUF model: load the model in bf16 or scaled fp8 with "
            "UNETLoader in place of the GGUF loader"
        )
    backbone = backbone_of(model.model)
    check_family(backbone.family, config.family)
    check_taps(backbone.taps(), config.tap, config.in_channels)
    backbone.check_text(config.text)
