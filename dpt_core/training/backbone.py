"""A frozen text-to-image model as the training sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..backbones import autoencoders
from ..backbones.base import Backbone as ModelBackbone
from ..backbones.base import BackboneCall, rows_of
from ..backbones.registry import backbone_of, left_out, modules_of, network_name
from ..losses import Phrases, denoising_loss
from ..reading import noised_at
from .data.examples import GroundingExample

PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")

LEVELS = 1000
"""Timesteps that training draws from."""


class TextFeatures(NamedTuple):
    """What the text encoders say about `B` texts.

    Attributes:
        inputs: of the network, as the pipeline encodes them.
        vectors: `[B, D]` text vectors `y`.
    """

    inputs: dict[str, Any]
    vectors: torch.Tensor

    @property
    def context(self) -> torch.Tensor:
        """`[B, L, E]` what the network attends to."""
        return self.inputs["encoder_hidden_states"]

    def select(self, rows: slice | torch.Tensor) -> TextFeatures:
        """Those of some texts."""
        return TextFeatures(rows_of(self.inputs, rows, len(self.vectors)), self.vectors[rows])


@dataclass(frozen=True)
class Backbone:
    """A diffusers pipeline, frozen, and the backbone that reads it.

    Attributes:
        pipeline: with its network, autoencoder, text encoders and a scheduler that tells the noise.
        model: its family's backbone; the network that is read may be a copy that carries a LoRA.
    """

    pipeline: Any
    model: ModelBackbone

    @classmethod
    def from_folder(cls, folder: str | Path, device: str | torch.device = "cpu") -> Backbone:
        """Load a diffusers model directory, frozen.

        Raises:
            ValueError: the folder holds no model of a known family, or a damaged one.
        """
        from diffusers import DiffusionPipeline

        with _local(folder, "model_index.json", "diffusers model directory"):
            pipeline = DiffusionPipeline.from_pretrained(
                folder, local_files_only=True, **left_out(folder)
            )
        return cls.of(pipeline.to(device), str(folder))

    @classmethod
    def of(cls, pipeline: Any, name: str = "the pipeline") -> Backbone:
        """A diffusers pipeline, frozen.

        Raises:
            ValueError: no family reads its network, or a part is missing.
        """
        from diffusers import DDPMScheduler

        if lacking := [each for each in PARTS if getattr(pipeline, each, None) is None]:
            raise ValueError(f"{name} is no text-to-image model: it has no {', '.join(lacking)}")
        pipeline = copy(pipeline)
        if getattr(pipeline, "unet", None) is not None:  # not every scheduler tells the noise
            known = DDPMScheduler.from_config(pipeline.scheduler.config)
            pipeline.register_modules(scheduler=known)
        for part in modules_of(pipeline).values():
            part.requires_grad_(False).eval()
        return cls(pipeline, backbone_of(pipeline))

    def with_network(self, network: nn.Module) -> Backbone:
        """The same around another network of the family."""
        pipeline = copy(self.pipeline)
        pipeline.register_modules(**{network_name(pipeline): network})
        return Backbone(pipeline, backbone_of(pipeline))

    @property
    def network(self) -> nn.Module:
        """The denoising network."""
        return self.model.module

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""
        return self.pipeline.vae

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return self.pipeline.text_encoder

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.pipeline.tokenizer

    @property
    def scheduler(self) -> Any:
        """What tells the noise."""
        return self.pipeline.scheduler

    @torch.no_grad()
    def read(
        self, texts: Sequence[str], size: Sequence[int] = (64, 64), source: str | None = None
    ) -> TextFeatures:
        """Encode texts as the pipeline does.

        Args:
            texts: `B` of them.
            size: (height, width) of the latents; only some families look at it.
            source: of the text vectors, by default the one that fits the family best.
        """
        inputs = self.model.conditioning(texts, size)
        source = source or self.model.texts[0]
        return TextFeatures(inputs, self.model.text_vectors(texts, source, inputs))

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures `[B, 3, H, W]` in [-1, 1] as scaled latents `[B, C, h, w]`."""
        return autoencoders.encode(self.pipeline.vae, pictures, sample=True)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents `[B, C, h, w]` as pictures `[B, 3, H, W]`, about in [-1, 1]."""
        return autoencoders.decode(self.pipeline.vae, latents)

    def noised(
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        inputs: dict[str, Any],
    ) -> BackboneCall:
        """A call of the network on latents `[B, C, h, w]` at levels `[B]` of :data:`LEVELS`."""
        return noised_at(self.model, clean, noise, levels, inputs)

    def denoising_loss(
        self, predicted: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, call: BackboneCall
    ) -> torch.Tensor:
        """The denoising loss of what the network predicted in a call."""
        return denoising_loss(predicted, self.target(clean, noise, call))

    def target(self, clean: torch.Tensor, noise: torch.Tensor, call: BackboneCall) -> torch.Tensor:
        """What the network should predict in a call on latents `clean` with `noise`."""
        packed = self.model.packed
        return self.model.target(packed(clean), packed(noise), call.sigmas())


class PhraseEncoder(nn.Module):
    """The encoder of referring expressions: RoBERTa as published, or any other with a tokenizer.

    Args:
        tokenizer: one that knows character offsets ("fast").
        encoder: gives `last_hidden_state`; frozen here.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:
        super().__init__()
        self._tokenizer, self._encoder = tokenizer, encoder.requires_grad_(False).eval()

    @classmethod
    def from_folder(cls, folder: str | Path) -> PhraseEncoder:
        """Load a transformers encoder, for example a copy of roberta-base.

        Raises:
            ValueError: the folder holds none, or a damaged one.
        """
        from transformers import AutoModel, AutoTokenizer

        with _local(folder, "config.json", "transformers model directory"):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            return cls(tokenizer, AutoModel.from_pretrained(folder, local_files_only=True))

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return self._encoder.config.hidden_size

    @torch.no_grad()
    def forward(self, examples: Sequence[GroundingExample]) -> tuple[Phrases, list[torch.Tensor]]:
        """Encode captions and find the tokens that name each box.

        Returns:
            Hidden states with their mask, and for each example `[n, L]` bool.
        """
        tokens = self._tokenizer(
            [example.caption for example in examples],
            padding=True,
            truncation=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping")  # [B, L, 2]
        tokens = tokens.to(self._encoder.device)
        hidden = self._encoder(**tokens).last_hidden_state
        named = [
            torch.stack([_tokens_in(offset, spans) for spans in example.spans])
            for offset, example in zip(offsets, examples, strict=True)
        ]
        return Phrases(hidden, tokens.attention_mask.bool()), named


@contextmanager
def _local(folder: str | Path, index: str, what: str) -> Iterator[None]:
    """Load a model from a folder: a name is never looked up in the network.

    Raises:
        ValueError: no such folder, or what is in it cannot be loaded.
    """
    if not (Path(folder) / index).is_file():
        raise ValueError(f"{folder} must be a {what}, with {index} in it; there is none")
    try:
        yield
    # Damaged files end in whatever the libraries meet first.
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be loaded as a {what} ({type(error).__name__}: {error}): is every "
            "file of it there, and whole?"
        ) from error


def _tokens_in(offsets: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Which tokens with character offsets `[L, 2]` touch any of the spans, `[L]` bool."""
    starts, ends = offsets.unbind(1)
    hits = [(starts < end) & (ends > start) & (ends > starts) for start, end in spans]
    return torch.stack(hits).any(0)
