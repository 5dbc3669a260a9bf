"""Features of an autoencoder, for a Fréchet distance that needs no Inception network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from ...backbones.autoencoders import cell_of, encode
from ...reading import whole_cells

CELLS = 4
"""Latents are averaged over so many by so many parts of a picture."""


class LatentFeatures(nn.Module):
    """What an autoencoder makes of pictures: where which colours and edges are, coarsely.

    Args:
        vae: of a diffusers pipeline.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures `[N, 3, H, W]` uint8 as features `[N, 16 C]`, twice: there are no classes."""
        pixels = whole_cells(pictures.float() / 127.5 - 1, cell_of(self.vae))
        latents = encode(self.vae, pixels)
        features = adaptive_avg_pool2d(latents, CELLS).flatten(1)
        return features, features
