"""The demo's UNet: latent diffusion on captions that are not always true, as on the web."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ...losses import denoising_loss


class DenoiserExample(NamedTuple):
    """A latent and two captions.

    Attributes:
        latent: `[4, h, w]`, scaled to unit variance.
        caption: what the picture shows.
        wrong: a hard negative.
    """

    latent: torch.Tensor
    caption: str
    wrong: str


class DenoiserTask(nn.Module):
    """The denoising loss of a UNet on a frozen text encoder.

    Args:
        unet: diffusers' `UNet2DConditionModel`.
        text: from captions to the text encoder's hidden states `[B, L, D]`, without gradient.
        scheduler: diffusers' `DDPMScheduler`; its prediction type is what the UNet learns.
        wrong: share of pictures captioned with a hard negative.
        dropped: share of pictures without a caption, for classifier-free guidance.
        lean: how much timesteps lean towards high noise, where layouts form: their density is
            proportional to t^(lean - 1), uniform for 1.
    """

    def __init__(
        self,
        unet: nn.Module,
        text: Any,
        scheduler: Any,
        wrong: float = 0.3,
        dropped: float = 0.1,
        lean: float = 1.0,
    ) -> None:
        super().__init__()
        self.unet, self._text, self._scheduler = unet, text, scheduler
        self.wrong, self.dropped, self.lean = wrong, dropped, lean

    def forward(self, batch: list[DenoiserExample]) -> dict[str, torch.Tensor]:
        latents = torch.stack([example.latent for example in batch])
        dice = torch.rand(len(latents)).tolist()
        captions = [
            "" if die < self.dropped else wrong if die < self.dropped + self.wrong else caption
            for die, (_, caption, wrong) in zip(dice, batch, strict=True)
        ]
        noise = torch.randn_like(latents)
        steps = len(self._scheduler.alphas_cumprod)
        share = torch.rand(len(latents), device=latents.device) ** (1 / self.lean)
        timesteps = (steps * share).long().clamp(max=steps - 1)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        target = target_of(self._scheduler, latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, self._text(captions)).sample
        return {"denoising": denoising_loss(prediction, target)}


def target_of(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What a UNet is trained to predict under a scheduler's prediction type.

    Raises:
        ValueError: a prediction type other than epsilon and v_prediction.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"prediction type must be epsilon or v_prediction; got {kind!r}")
