"""The DPT LoRA: rank-r updates of a UNet's linear layers.

Attention projections have their published names,
`unet.<attention>.processor.<projection>_lora.<down|up>.weight`, with `<attention>` a diffusers
module path and `<projection>` one of to_q, to_k, to_v, to_out. Any other layer, such as those of a
feed-forward network, is named by its whole path: `unet.<module>.lora.<down|up>.weight`. Layers of
transformers have the host's names: `diffusion_model.<module>.lora_<down|up>.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from .settings import check_number

PREFIX = "unet."
_PROJECTION = re.compile(
    r"unet\.(?P<attention>.+)\.processor\.(?P<projection>to_[qkv]|to_out)_lora"
    r"\.(?P<side>down|up)\.weight"
)
_LAYER = re.compile(r"unet\.(?P<module>.+)\.lora\.(?P<side>down|up)\.weight")
_PROJECTED = re.compile(r"(?P<attention>.+)\.(?P<projection>to_[qkv]|to_out(?=\.0$))(\.0)?")
GENERIC = "diffusion_model."
_GENERIC = re.compile(r"(?P<module>diffusion_model\..+)\.lora_(?P<side>down|up)\.weight")


STRONGEST = 4.0
"""A LoRA's strength lies between minus this and this."""


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
    return _place(key) is not None


def lora_key(module: str, side: str) -> str:
    """Key of a layer's tensor.

    Args:
        module: diffusers path of the layer, e.g. `….attn1.to_out.0` or `….ff.net.2`, or the
            host's, e.g. `diffusion_model.layers.1.attention.out`.
        side: `down` or `up`.
    """
    if module.startswith(GENERIC):
        return f"{module}.lora_{side}.weight"
    if match := _PROJECTED.fullmatch(module):
        return f"{PREFIX}{match['attention']}.processor.{match['projection']}_lora.{side}.weight"
    return f"{PREFIX}{module}.lora.{side}.weight"


def strengthened(lora: Mapping[str, torch.Tensor], strength: float) -> dict[str, torch.Tensor]:
    """The LoRA that at strength 1 is what this one is at `strength`."""
    return {
        key: value * strength if _place(key)[1] == "up" else value for key, value in lora.items()
    }


def _place(key: str) -> tuple[str, str] | None:
    """Module and side that a key names, or None where it names no LoRA tensor."""
    if match := _PROJECTION.fullmatch(key):
        projection = match["projection"] + (".0" if match["projection"] == "to_out" else "")
        return f"{match['attention']}.{projection}", match["side"]
    match = _LAYER.fullmatch(key) or _GENERIC.fullmatch(key)
    return (match["module"], match["side"]) if match else None


def lora_updates(lora: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, LoraUpdate]]:
    """Group LoRA tensors by the diffusers module they update.

    Args:
        lora: keys → tensors.

    Yields:
        Module path (`….attn1.to_q`, `….attn1.to_out.0`, `….ff.net.2`) and its update.

    Raises:
        ValueError: a key is not a LoRA key, or lacks its other half.
    """
    for key, down in lora.items():
        place = _place(key)
        if place is None:
            raise ValueError(f"not a LoRA key: {key!r}")
        module, side = place
        other = lora_key(module, "up" if side == "down" else "down")
        if other not in lora:
            raise ValueError(f"LoRA tensor {key!r} has no counterpart {other!r}")
        if side == "down":
            yield module, LoraUpdate(down, lora[other])


def check_strength(strength: float) -> None:
    """Refuse a LoRA's strength that is no number or out of range.

    Raises:
        ValueError: it is.
    """
    check_number("strength", strength, -STRONGEST, STRONGEST)


@torch.no_grad()
def merge_lora(network: nn.Module, lora: Mapping[str, torch.Tensor], strength: float = 1.0) -> None:
    """Add `strength · up · down` to the layers of a diffusers network, in place.

    Merging again with the opposite strength takes it out, up to rounding.

    Args:
        network: a UNet, or a transformer; whose LoRA may have the host's names.
        lora: keys → tensors.
        strength: of the updates, see :func:`check_strength`.

    Raises:
        ValueError: the strength is out of range, the network lacks a module that the LoRA updates,
            or its shape differs.
    """
    from .host_names import own_updates  # which reads the names above

    check_strength(strength)
    modules = dict(network.named_modules())
    for name, (down, up) in own_updates(network, lora):
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != (up.shape[0], down.shape[1]):
            found = "no such module" if weight is None else f"weight {list(weight.shape)}"
            raise ValueError(
                f"LoRA update of {name} needs weight {[up.shape[0], down.shape[1]]}, the model has "
                f"{found}: it was trained on another model family"
            )
        weight += strength * (up.to(weight) @ down.to(weight))
