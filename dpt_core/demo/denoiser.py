"""The demo's UNet: latent diffusion on captions that are not always true, as on the web."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..losses import denoising_loss, denoising_target
from .datasets import DenoiserExample


class DenoiserTask(nn.Module):
    """The denoising loss of a UNet on a frozen text encoder.

    Args:
        unet: diffusers' `UNet2DConditionModel`.
        text: from captions to the text encoder's hidden states `[B, L, D]`, without gradient.
        scheduler: diffusers' `DDPMScheduler`; its prediction type is what the UNet learns.
        wrong: share of pictures captioned with a hard negative.
        dropped: share of pictures without a caption, for classifier-free guidance.
        timestep_skew: how much timesteps lean towards high noise, where layouts form: their
            density is proportional to t^(timestep_skew - 1), uniform for 1.
    """

    def __init__(
        self,
        unet: nn.Module,
        text: Any,
        scheduler: Any,
        wrong: float = 0.3,
        dropped: float = 0.1,
        timestep_skew: float = 1.0,
    ) -> None:
        super().__init__()
        self.unet, self._text, self._scheduler = unet, text, scheduler
        self.wrong, self.dropped, self.timestep_skew = wrong, dropped, timestep_skew

    def forward(self, batch: list[DenoiserExample]) -> dict[str, torch.Tensor]:
        latents = torch.stack([example.latent for example in batch])
        dice = torch.rand(len(latents)).tolist()
        captions = [
            "" if die < self.dropped else wrong if die < self.dropped + self.wrong else caption
            for die, (_, caption, wrong) in zip(dice, batch, strict=True)
        ]
        noise = torch.randn_like(latents)
        steps = len(self._scheduler.alphas_cumprod)
        share = torch.rand(len(latents), device=latents.device) ** (1 / self.timestep_skew)
        timesteps = (steps * share).long().clamp(max=steps - 1)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        target = denoising_target(self._scheduler, latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, self._text(captions)).sample
        return {"denoising": denoising_loss(prediction, target)}
