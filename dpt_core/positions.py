"""Where and when: the sine position of a feature map's cells and the learned timestep embedding."""

from __future__ import annotations

import math

import torch
from einops import repeat
from torch import nn


def sine_position(
    height: int, width: int, channels: int, device: torch.device | None = None
) -> torch.Tensor:
    """Two-dimensional sine position embedding.

    Rows and columns are counted from 1 and normalised to 2π; each axis takes half of the
    channels, y first, sine and cosine alternating with wavelengths up to 10000.

    Args:
        height, width: size of the feature map in cells.
        channels: embedding width, a multiple of 4.
        device: where the result lives.

    Returns:
        `[channels, height, width]` float32 in [-1, 1].
    """
    half = channels // 2
    exponent = torch.arange(half, device=device) // 2 * 2 / half
    frequency = 10000.0**-exponent  # [half]

    def axis(cells: int) -> torch.Tensor:
        place = torch.arange(1, cells + 1, device=device, dtype=torch.float32)
        angle = place[:, None] / (cells + 1e-6) * (2 * math.pi) * frequency
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = repeat(axis(height), "h c -> c h w", w=width)
    columns = repeat(axis(width), "w c -> c h w", h=height)
    return torch.cat((rows, columns))


class TimestepEmbedding(nn.Module):
    """Learned embedding of the diffusion timestep: sinusoid (cosine first) → SiLU MLP.

    Args:
        width: embedding width; the hidden layer is four times as wide.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(width, 4 * width), "linear_2": nn.Linear(4 * width, width)}
        )

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Embed timesteps `[B]` in [0, 1000) as `[B, width]`."""
        half = self.width // 2
        exponent = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
        angle = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
        sinusoid = torch.cat((angle.cos(), angle.sin()), dim=1)
        hidden = nn.functional.silu(self.time_embedding["linear_1"](sinusoid))
        return self.time_embedding["linear_2"](hidden)
