"""A frozen text-to-image model as the training sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..losses import Phrases
from .data.examples import GroundingExample


class TextFeatures(NamedTuple):
    """What the text encoder says about `B` texts.

    Attributes:
        context: `[B, L, E]` what the UNet attends to.
        vectors: `[B, D]` text vectors `y`: the hidden state at the end-of-text token.
    """

    context: torch.Tensor
    vectors: torch.Tensor


@dataclass(frozen=True)
class Backbone:
    """The parts of a Stable Diffusion 1.x or 2.x model.

    Attributes:
        unet, vae, text_encoder, tokenizer: of diffusers and transformers.
        scheduler: a `DDPMScheduler` with the model's noise schedule and prediction type.
    """

    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any

    @classmethod
    def from_folder(cls, folder: str | Path, device: str | torch.device = "cpu") -> Backbone:
        """Load a diffusers model directory, frozen.

        Raises:
            ValueError: the folder holds no Stable Diffusion 1.x or 2.x model, or a damaged one.
        """
        from diffusers import DiffusionPipeline

        with _local(folder, "model_index.json", "diffusers model directory"):
            pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        return cls.of(pipeline.to(device), str(folder))

    @classmethod
    def of(cls, pipeline: Any, name: str = "the pipeline") -> Backbone:
        """The parts of a diffusers pipeline, frozen.

        Raises:
            ValueError: it is of no Stable Diffusion 1.x or 2.x model.
        """
        from diffusers import DDPMScheduler

        names = ("unet", "vae", "text_encoder", "tokenizer")
        parts = {name: getattr(pipeline, name, None) for name in names}
        if lacking := [name for name, part in parts.items() if part is None]:
            raise ValueError(
                f"{name} is no Stable Diffusion 1.x or 2.x model: it has no {', '.join(lacking)}"
            )
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        for part in (parts["unet"], parts["vae"], parts["text_encoder"]):
            part.requires_grad_(False).eval()
        return cls(**parts, scheduler=scheduler)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts as the pipeline does: padded to the encoder's length."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        hidden = self.text_encoder(ids).last_hidden_state
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        return TextFeatures(hidden, hidden[torch.arange(len(ids)), ends])

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures `[B, 3, H, W]` in [-1, 1] as scaled latents `[B, 4, H/8, W/8]`."""
        moments = self.vae.encode(pictures.to(self.vae.device, self.vae.dtype)).latent_dist
        return moments.sample().float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents `[B, 4, h, w]` as pictures `[B, 3, 8h, 8w]`, about in [-1, 1]."""
        latents = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(latents).sample.float()


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
