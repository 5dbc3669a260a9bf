"""The demo's two models: a UNet, and a transformer on the same text encoder and autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import nn

from ..config import AdapterConfig
from . import model, transformer


class Architecture(NamedTuple):
    """One of them.

    Attributes:
        part: file of the network that ships, and what a pipeline calls it.
        checkpoint: file of its adapter.
        new: an untrained network.
        pipeline: a diffusers pipeline of parts.
        adapter: sizes of its adapter, and where it reads.
        trained: stage that makes the network.
    """

    part: str
    checkpoint: str
    new: Callable[[], nn.Module]
    pipeline: Callable[[Any], Any]
    adapter: AdapterConfig
    trained: str

    def pipeline_of(
        self, network: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer: Any
    ) -> Any:
        """A diffusers pipeline around a network."""
        others = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer}
        return self.pipeline(SimpleNamespace(**{self.part: network}, **others))


UNET, DIT = "unet", "dit"

ARCHITECTURES = {
    UNET: Architecture(
        "unet", "dpt.safetensors", model.new_unet, model.pipeline, model.ADAPTER,
        "denoiser_finetuning",
    ),
    DIT: Architecture(
        "transformer", "dpt_transformer.safetensors", transformer.new_transformer,
        transformer.pipeline, transformer.ADAPTER, "transformer",
    ),
}  # fmt: skip


def architecture_of(name: str) -> Architecture:
    """An architecture by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"the architectures are {', '.join(ARCHITECTURES)}; got {name!r}")
    return ARCHITECTURES[name]
