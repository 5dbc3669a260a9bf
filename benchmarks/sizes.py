"""The published UNets, as diffusers and as ComfyUI describe them, and their operations."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from dpt_core.backbones.base import BackboneCall, read_features
from dpt_core.backbones.stable_diffusion import StableDiffusion, unet_taps
from dpt_core.config import AdapterConfig
from dpt_core.demo import model as demo
from dpt_core.evaluation.cost import count_operations

_SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {
        **_SD,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "demo": demo.UNET,
}
"""diffusers' configs; `demo` is the shapes world's small model."""


def adapter_config(name: str) -> AdapterConfig:
    """The published adapter for a UNet."""
    if name == "demo":
        return demo.ADAPTER
    unet = UNETS[name]
    channels = unet_taps(unet["block_out_channels"])[AdapterConfig.tap]
    return AdapterConfig(in_channels=channels, text_width=unet["cross_attention_dim"])


def inputs_of(unet: Any, rows: int, side: int, seed: int = 0) -> tuple[tuple, dict[str, Any]]:
    """Random inputs of a diffusers UNet: latents, timestep and context, and what SDXL adds."""
    place = {"device": unet.device, "dtype": unet.dtype}
    torch.manual_seed(seed)
    context = torch.randn(rows, 77, unet.config.cross_attention_dim, **place)
    more: dict[str, Any] = {}
    if unet.config.addition_embed_type == "text_time":
        text, times = torch.randn(rows, 1280, **place), torch.zeros(rows, 6, **place)
        more["added_cond_kwargs"] = {"text_embeds": text, "time_ids": times}
    latents = torch.randn(rows, unet.config.in_channels, side, side, **place)
    return (latents, torch.tensor(500, device=unet.device), context), more


@dataclass(frozen=True)
class Floors:
    """Fewest operations of a corrected step over those of a plain one.

    Attributes:
        exact: a pass of the conditional row to the tap, back, and the plain step.
        lagged: the plain step and back from the tap.
        published: the conditional row through the whole UNet, back, and the plain step.
    """

    exact: float
    lagged: float
    published: float


def floors(name: str, side: int) -> Floors:
    """Count operations on a UNet without storage, weights without gradient.

    Args:
        name: of :data:`UNETS`.
        side: of the latent.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name]).requires_grad_(False)
    (latents, timestep, context), more = inputs_of(unet, 1, side)
    tap = adapter_config(name).tap

    def whole() -> None:
        with torch.no_grad():
            unet(latents, timestep, context, **more)

    def to_tap(back: bool) -> None:
        call = BackboneCall(leaf, timestep, {"encoder_hidden_states": context, **more})
        features, _ = read_features(reader, tap, call)
        if back:
            torch.autograd.grad(features.sum(), leaf)

    reader = StableDiffusion(SimpleNamespace(unet=unet, scheduler=None))
    leaf = latents.clone().requires_grad_()
    plain = 2 * count_operations(whole)
    forward = count_operations(lambda: to_tap(False))
    backward = count_operations(lambda: to_tap(True)) - forward
    return Floors(
        exact=1 + (forward + backward) / plain,
        lagged=1 + backward / plain,
        published=1.5 + backward / plain,
    )
