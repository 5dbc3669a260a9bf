"""The discriminative adapter (Section 3.2 of arXiv 2403.04321).

A feature map of the diffusion UNet goes in; matching queries say how well the noisy latent agrees
with a text, grounding queries say where things are. Module names are the published ones, so that
published checkpoints load strictly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import nn

from .config import AdapterConfig
from .positions import TimestepEmbedding, sine_position
from .transformer import Transformer

INITIAL_TEMPERATURE = 0.07
"""Temperature τ of the contrastive loss at the start of training; `logit_scale` is log(1/τ)."""


class AdapterOutput(NamedTuple):
    """What the adapter says about `B` noisy latents.

    Attributes:
        query_text: `[B, Qm, D]` matching queries in the text encoder's space.
        logits: `[B, Qg, K]` class logits of the grounding queries, the last one "no object".
        boxes: `[B, Qg, 4]` normalised (cx, cy, w, h) in [0, 1].
        projections: `[B, Qg, P]` grounding queries in the contrastive alignment space
            (training only; not normalised).
    """

    query_text: torch.Tensor
    logits: torch.Tensor
    boxes: torch.Tensor
    projections: torch.Tensor


class BoxHead(nn.Module):
    """Three linear layers from a query `[..., width]` to box logits `[..., 4]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width, width, width, 4]
        self.layers = nn.ModuleList(
            nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        return last(second(first(queries).relu()).relu())


class DiscriminativeAdapter(nn.Module):
    """A transformer with learned queries on top of a diffusion backbone's features.

    Args:
        config: sizes and conventions.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        queries = config.matching_queries + config.grounding_queries
        self.input_proj = nn.Conv2d(config.in_channels, width, config.patch, stride=config.patch)
        self.timestep_embedding = TimestepEmbedding(width)
        self.query_embed = nn.Embedding(queries, width)
        self.transformer = Transformer(config)
        self.map_to_clip = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.text_width)
        )
        self.class_embed = nn.Linear(width, config.classes)
        self.bbox_embed = BoxHead(width)
        self.contrastive_align_projection_image = nn.Linear(width, config.contrastive_width)
        self.contrastive_align_projection_text = nn.Linear(
            config.phrase_width, config.contrastive_width
        )
        if config.text == "mean":
            self.register_buffer("text_mean", torch.zeros(config.text_width))
            self.register_buffer("text_scale", torch.ones(config.text_width))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))

    def forward(self, features: torch.Tensor, timesteps: torch.Tensor) -> AdapterOutput:
        """Answer both questions.

        Args:
            features: `[B, C, h, w]` tapped feature map, any floating dtype; the adapter itself
                runs in its parameters' dtype.
            timesteps: `[B]` diffusion timesteps in [0, 1000).

        Raises:
            ValueError: the feature map does not have `config.in_channels` channels.
        """
        queries = self._decode(features, timesteps, self.query_embed.weight)
        matching = queries[:, : self.config.matching_queries]
        grounding = queries[:, self.config.matching_queries :]
        return AdapterOutput(
            query_text=self.map_to_clip(matching),
            logits=self.class_embed(grounding),
            boxes=self.bbox_embed(grounding).sigmoid(),
            projections=self.contrastive_align_projection_image(grounding),
        )

    def match(self, features: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Only the matching queries, `[B, Qm, D]`: the same numbers as :meth:`forward`, cheaper.

        With one decoder layer that starts from zeros the queries do not see each other, so the
        grounding queries need not be computed.
        """
        matching = self.config.matching_queries
        alone = self.config.decoder_layers == 1
        positions = self.query_embed.weight[:matching] if alone else self.query_embed.weight
        return self.map_to_clip(self._decode(features, timesteps, positions)[:, :matching])

    def compared(self, text: torch.Tensor) -> torch.Tensor:
        """What the matching queries are compared with, float32.

        States of language models have dimensions so large that they would rule a cosine: their
        means over a prompt are taken relative to the mean and scale of the training's prompts,
        which the adapter keeps.

        Args:
            text: `[B, D]` text vectors y.

        Raises:
            ValueError: they have another width.
        """
        if text.shape[-1] != self.config.text_width:
            raise ValueError(
                f"adapter expects a text vector of width {self.config.text_width}, got "
                f"{text.shape[-1]}: it was trained with another text encoder"
            )
        if self.config.text != "mean":
            return text.float()
        return (text.float() - self.text_mean) / self.text_scale

    def _decode(
        self, features: torch.Tensor, timesteps: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor:
        if features.shape[1] != self.config.in_channels:
            raise ValueError(
                f"adapter expects {self.config.in_channels} channels at {self.config.tap}, got "
                f"{features.shape[1]}: it was trained on another model family"
            )
        cells = self.input_proj(self._whole_patches(features.to(self.input_proj.weight.dtype)))
        batch, _, height, width = cells.shape
        position = sine_position(height, width, self.config.width, features.device).to(cells.dtype)
        position = position + self.timestep_embedding(timesteps)[:, :, None, None]
        return self.transformer(
            rearrange(cells, "b c h w -> b (h w) c"),
            rearrange(position, "b c h w -> b (h w) c"),
            repeat(queries, "q c -> b q c", b=batch),
        )

    def _whole_patches(self, features: torch.Tensor) -> torch.Tensor:
        """A feature map with its last row and column repeated until patches cover it."""
        down, right = (-side % self.config.patch for side in features.shape[2:])
        if down or right:
            return nn.functional.pad(features, (0, right, 0, down), mode="replicate")
        return features
