"""The DPT LoRA: rank-r updates of a UNet's attention projections under their published names.

A published key reads `unet.<attention>.processor.<projection>_lora.<down|up>.weight`, with
`<attention>` a diffusers module path and `<projection>` one of to_q, to_k, to_v, to_out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

PREFIX = "unet."
_KEY = re.compile(
    r"unet\.(?P<attention>.+)\.processor\.(?P<projection>to_[qkv]|to_out)_lora"
    r"\.(?P<side>down|up)\.weight"
)


class LoraUpdate(NamedTuple):
    """One low-rank update `ΔW = up · down`.

    Attributes:
        down: `[r, in]`.
        up: `[out, r]`.
    """

    down: torch.Tensor
    up: torch.Tensor


def is_lora_key(key: str) -> bool:
    """Whether a checkpoint key names a LoRA tensor."""
    return _KEY.fullmatch(key) is not None


def lora_key(module: str, side: str) -> str:
    """Published key of a projection, e.g. `….attn1.to_out.0` and `down`."""
    attention, projection = module.removesuffix(".0").rsplit(".", 1)
    return f"{PREFIX}{attention}.processor.{projection}_lora.{side}.weight"


def lora_updates(lora: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, LoraUpdate]]:
    """Group LoRA tensors by the diffusers module they update.

    Args:
        lora: published keys → tensors.

    Yields:
        Module path (`….attn1.to_q`, `….attn1.to_out.0`) and its update.

    Raises:
        ValueError: a key is not a LoRA key, or lacks its other half.
    """
    for key, down in lora.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"not a LoRA key: {key!r}")
        projection = match["projection"] + (".0" if match["projection"] == "to_out" else "")
        module = f"{match['attention']}.{projection}"
        other = lora_key(module, "up" if match["side"] == "down" else "down")
        if other not in lora:
            raise ValueError(f"LoRA tensor {key!r} has no counterpart {other!r}")
        if match["side"] == "down":
            yield module, LoraUpdate(down, lora[other])


@torch.no_grad()
def merge_lora(unet: nn.Module, lora: Mapping[str, torch.Tensor], strength: float = 1.0) -> None:
    """Add `strength · up · down` to a diffusers UNet's projections, in place.

    Merging again with the opposite strength takes it out, up to rounding.

    Raises:
        ValueError: the UNet lacks a module that the LoRA updates, or its shape differs.
    """
    modules = dict(unet.named_modules())
    for name, (down, up) in lora_updates(lora):
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != (up.shape[0], down.shape[1]):
            found = "no such module" if weight is None else f"weight {list(weight.shape)}"
            raise ValueError(
                f"LoRA update of {name} needs weight {[up.shape[0], down.shape[1]]}, the UNet has "
                f"{found}: it was trained on another model family"
            )
        weight += strength * (up.to(weight) @ down.to(weight))
