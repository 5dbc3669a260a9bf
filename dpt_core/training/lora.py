"""The trained LoRA: rank-4 updates of the attention projections, through peft."""

from __future__ import annotations

import torch
from torch import nn

from ..lora import lora_key

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 4


def add_lora(unet: nn.Module, rank: int = RANK) -> None:
    """Add a trainable LoRA to a diffusers UNet; its other weights are frozen.

    Args:
        unet: the UNet.
        rank: of the updates; published value 4.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS))


def lora_of(unet: nn.Module) -> dict[str, torch.Tensor]:
    """The LoRA of a UNet under its published names (:mod:`dpt_core.lora`)."""
    from peft import get_peft_model_state_dict

    return {
        lora_key(module, {"lora_A": "down", "lora_B": "up"}[side]): value.detach().float().cpu()
        for key, value in get_peft_model_state_dict(unet).items()
        for module, side in [key.removesuffix(".weight").rsplit(".", 1)]
    }
