"""Layers of diffusers' networks under the host's names, for LoRAs that both can read.

A UNet's blocks are only counted otherwise. Of transformers the host has queries, keys and values in
one layer, and in Flux's single blocks the feed-forward network's first layer with them. A LoRA of
one of them is a LoRA of the host's layer whose other rows are zero; several together are one of
their summed rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from .backbones.registry import family_of
from .lora import GENERIC, LoraUpdate, lora_key, lora_updates

_FUSED = ("to_q", "to_k", "to_v")

NAMES: dict[str, dict[str, str]] = {
    "sd3": {
        r"transformer_blocks\.(\d+)\.(attn2?)\.to_[qkv]": r"joint_blocks.\1.x_block.\2.qkv",
        r"transformer_blocks\.(\d+)\.(attn2?)\.to_out\.0": r"joint_blocks.\1.x_block.\2.proj",
        r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"joint_blocks.\1.x_block.mlp.fc1",
        r"transformer_blocks\.(\d+)\.ff\.net\.2": r"joint_blocks.\1.x_block.mlp.fc2",
    },
    "flux": {
        r"transformer_blocks\.(\d+)\.attn\.to_[qkv]": r"double_blocks.\1.img_attn.qkv",
        r"transformer_blocks\.(\d+)\.attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
        r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"double_blocks.\1.img_mlp.0",
        r"transformer_blocks\.(\d+)\.ff\.net\.2": r"double_blocks.\1.img_mlp.2",
        r"single_transformer_blocks\.(\d+)\.attn\.to_[qkv]": r"single_blocks.\1.linear1",
    },
    "qwen_image": {r"(transformer_blocks\.\d+\.attn\.to_(?:q|k|v|out\.0))": r"\1"},
    "z_image": {
        r"(\w+\.\d+)\.attention\.to_[qkv]": r"\1.attention.qkv",
        r"(\w+\.\d+)\.attention\.to_out\.0": r"\1.attention.out",
    },
}
"""Family → pattern of a layer's path in diffusers → the host's path."""


_UNET = re.compile(
    re.escape(GENERIC)
    + r"(?:(?P<way>input|output)_blocks\.(?P<n>\d+)|middle_block)\.1\.(?P<rest>.+)"
)
"""A layer of a UNet's attention in the host's count of blocks, where the second part attends."""


class Part(NamedTuple):
    """Where a layer is in the host's.

    Attributes:
        module: the host's path, `diffusion_model.…`.
        first, last: its rows of the host's weight (last exclusive).
        rows: of the host's weight.
    """

    module: str
    first: int
    last: int
    rows: int


def parts_of(network: nn.Module) -> dict[str, Part]:
    """Every layer of a diffusers transformer that a LoRA may update, and where the host has it.

    Empty for a UNet, whose LoRAs have the published names.
    """
    names = NAMES.get(family_of(network) or "", {})
    sizes = {
        name: module.out_features
        for name, module in network.named_modules()
        if hasattr(module, "out_features")
    }
    found = {}
    for name, count in sizes.items():
        for pattern, host in names.items():
            if not (match := re.fullmatch(pattern, name)):
                continue
            head, _, tail = name.rpartition(".")
            fused = [head + "." + each for each in _FUSED] if not host.endswith(r"\1") else []
            beside = [head.removesuffix(".attn") + ".proj_mlp"] if "linear1" in host else []
            order = [each for each in fused + beside if each in sizes] if tail in _FUSED else []
            order = order or [name]
            first = sum(sizes[each] for each in order[: order.index(name)])
            rows = sum(sizes[each] for each in order)
            found[name] = Part(GENERIC + match.expand(host), first, first + count, rows)
    return found


def stored(network: nn.Module, lora: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A LoRA as checkpoints keep it: of a transformer under the host's names.

    Args:
        network: of diffusers.
        lora: keys → tensors, by the network's own paths.

    Raises:
        ValueError: it updates a layer that the host has not.
    """
    parts = parts_of(network)
    if not parts:
        return dict(lora)
    together: dict[str, list[tuple[Part, LoraUpdate]]] = {}
    for name, update in lora_updates(lora):
        if name not in parts:
            raise ValueError(
                f"the LoRA updates {name}, which has no name in ComfyUI: take the layers "
                f"{', '.join(sorted({each.rsplit('.', 1)[-1] for each in parts}))}"
            )
        together.setdefault(parts[name].module, []).append((parts[name], update))
    made = {}
    for module, updates in together.items():
        ups = []
        for part, update in updates:
            up = update.up.new_zeros(part.rows, update.up.shape[1])
            up[part.first : part.last] = update.up
            ups.append(up)
        made[lora_key(module, "down")] = torch.cat([update.down for _, update in updates])
        made[lora_key(module, "up")] = torch.cat(ups, dim=1)
    return made


def unet_path(name: str, layers: int) -> str:
    """The path in diffusers of a UNet's attention layer; a name of another kind stays.

    Args:
        name: the host's path, `diffusion_model.input_blocks.1.1.…`.
        layers: per block.
    """
    if not (match := _UNET.fullmatch(name)):
        return name
    if match["way"] is None:
        return f"mid_block.attentions.0.{match['rest']}"
    first = match["way"] == "input"  # the host counts the first convolution as a block
    block, place = divmod(int(match["n"]) - first, layers + 1)
    return f"{'down' if first else 'up'}_blocks.{block}.attentions.{place}.{match['rest']}"


def own_updates(
    network: nn.Module, lora: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, LoraUpdate]]:
    """A LoRA's updates by the paths of a diffusers network, whichever names it has."""
    layers = getattr(getattr(network, "config", None), "layers_per_block", None)
    hosts: dict[str, list[tuple[str, Part]]] = {}
    for name, part in parts_of(network).items():
        hosts.setdefault(part.module, []).append((name, part))
    for name, update in lora_updates(lora):
        if not name.startswith(GENERIC):
            yield name, update
        elif name not in hosts:  # of a UNet, or nobody has it: whoever applies it will say so
            yield unet_path(name, layers) if isinstance(layers, int) else name, update
        for own, part in hosts.get(name, ()):
            if update.up.shape[0] != part.rows:
                yield own, update  # of another model: whoever applies it will say so
                continue
            up = update.up[part.first : part.last]
            used = up.any(0) if up.any() else slice(None)  # the others belong to its neighbours
            yield own, LoraUpdate(update.down[used], up[:, used])
