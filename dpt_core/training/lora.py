"""The trained LoRA: low-rank updates of a network's linear layers, through peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..host_names import own_updates
from ..lora import lora_key

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention projections, which the published LoRA updates."""

FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
"""Both layers of the feed-forward networks."""

RANK = 4


def add_lora(unet: nn.Module, rank: int = RANK, layers: Sequence[str] = ATTENTION) -> None:
    """Add a trainable LoRA to a diffusers network; its other weights are frozen.

    `down` starts normal with deviation 1/rank, as in the published code, whatever the layer's
    width; `up` starts at zero.

    Args:
        unet: the UNet or transformer.
        rank: of the updates, ≥ 1; published value 4.
        layers: how the paths of the linear layers to update end.

    Raises:
        ValueError: rank below 1, or the network has no such layer.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"the LoRA's rank must be at least 1; got {rank}")
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(layers), init_lora_weights="gaussian"
        )
    )


def lora_of(unet: nn.Module) -> dict[str, torch.Tensor]:
    """The LoRA of a network by its own paths, under :mod:`dpt_core.lora`'s names; see
    :func:`~dpt_core.host_names.stored` for files."""
    from peft import get_peft_model_state_dict

    return {
        lora_key(module, {"lora_A": "down", "lora_B": "up"}[side]): value.detach().float().cpu()
        for key, value in get_peft_model_state_dict(unet).items()
        for module, side in [key.removesuffix(".weight").rsplit(".", 1)]
    }


@torch.no_grad()
def load_lora(unet: nn.Module, lora: Mapping[str, torch.Tensor]) -> None:
    """Give the LoRA that :func:`add_lora` has added the values of a checkpoint's.

    Raises:
        ValueError: it updates other layers, or has another rank.
    """
    updates, found = dict(own_updates(unet, lora)), 0
    for name, module in unet.named_modules():
        if name in updates and hasattr(module, "lora_A"):
            for side, value in zip(("lora_A", "lora_B"), updates[name], strict=True):
                weight = getattr(module, side)["default"].weight
                if weight.shape != value.shape:
                    raise ValueError(
                        f"the LoRA of {name} has {list(value.shape)}, expected {list(weight.shape)}"
                    )
                weight.copy_(value)
            found += 1
    if found != len(updates):
        raise ValueError(
            f"the LoRA updates {len(updates)} layers, of which {found} are trained: take the same "
            "layers"
        )
