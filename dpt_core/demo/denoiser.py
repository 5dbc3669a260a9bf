"""The demo's denoising networks learn from captions that are not always true, as on the web."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..training.backbone import LEVELS, Backbone
from .datasets import DenoiserExample

Levels = Callable[[int], torch.Tensor]
"""Draws so many noise levels `[N]`, of :data:`~dpt_core.training.backbone.LEVELS`."""


class DenoiserTask(nn.Module):
    """The denoising loss of a network on a frozen text encoder.

    Args:
        backbone: the model; its network is trained.
        levels: draws the noise levels.
        wrong: share of pictures captioned with a hard negative.
        dropped: share of pictures without a caption, for classifier-free guidance.
    """

    def __init__(
        self, backbone: Backbone, levels: Levels, wrong: float = 0.3, dropped: float = 0.1
    ) -> None:
        super().__init__()
        self.network, self._backbone = backbone.network, backbone
        self._levels, self.wrong, self.dropped = levels, wrong, dropped

    def forward(self, batch: list[DenoiserExample]) -> dict[str, torch.Tensor]:
        latents = torch.stack([example.latent for example in batch])
        dice = torch.rand(len(latents)).tolist()
        captions = [
            "" if die < self.dropped else wrong if die < self.dropped + self.wrong else caption
            for die, (_, caption, wrong) in zip(dice, batch, strict=True)
        ]
        model = self._backbone.model
        noise, levels = torch.randn_like(latents), self._levels(len(latents)).to(latents.device)
        inputs = model.conditioning(captions, latents.shape[-2:])
        call = self._backbone.noised(latents, noise, levels, inputs)
        predicted = model.run(self.network, call)
        return {"denoising": self._backbone.denoising_loss(predicted, latents, noise, call)}


def leaning(skew: float) -> Levels:
    """Whole levels that lean towards high noise, where layouts form: their density is proportional
    to level^(skew - 1), uniform for 1."""

    def draw(count: int) -> torch.Tensor:
        return (LEVELS * torch.rand(count) ** (1 / skew)).long().clamp(max=LEVELS - 1)

    return draw


def logit_normal(mean: float, deviation: float) -> Levels:
    """Levels whose logits are normal, as Stable Diffusion 3 was trained (arXiv 2403.03206)."""

    def draw(count: int) -> torch.Tensor:
        return LEVELS * torch.sigmoid(mean + deviation * torch.randn(count))

    return draw
