"""The host's model sampling as a noise path; see :class:`dpt_core.backbones.base.NoisePath`."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_sampling import CONST

SEEDS = 1 << 64
"""The host's seeds lie below; after the last one comes 0."""


class HostNoise:
    """The noise of a host model; sigma is the host's.

    Args:
        model_sampling: of the model.
    """

    def __init__(self, model_sampling: Any) -> None:
        self._sampling = model_sampling
        self._flow = isinstance(model_sampling, CONST)

    def weights(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """α and s of noise levels `[R]`, by what the host makes of a latent of 1 and of noise 1."""
        one, nothing = torch.ones_like(sigma), torch.zeros_like(sigma)
        scaled = self._sampling.noise_scaling
        return scaled(sigma, nothing, one), scaled(sigma, one, nothing)

    def noised(self, sigma: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`α x₀ + s ε` at levels `[R]`, of latents and noise `[R, ...]` or alike."""
        shape = (-1, *[1] * (clean.ndim - 1))
        alpha, share = (part.to(clean).view(shape) for part in self.weights(sigma))
        return alpha * clean + share * noise

    def level(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's own timestep on discrete schedules, 1000 sigma on flow models; float32."""
        return (1000.0 * sigma if self._flow else self._sampling.timestep(sigma)).float()

    def sigma(self, level: float) -> float:
        """Sigma of a level in [0, 1000)."""
        if self._flow:  # the host's `sigma` shifts its argument
            return level / 1000.0
        return float(self._sampling.sigma(torch.tensor([level])))

    def reached(self, percent: float) -> float:
        """Sigma when a share of the sampling is over."""
        return self._sampling.percent_to_sigma(percent)

    def unit(self, sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """How far a clean prediction goes with the network's output: `c_out` in
        `D = c_skip x + c_out F`, `[R, 1, ...]` of noise levels `[R]` and latents `[R, ...]`."""
        one = torch.ones_like(x[:, :1]).flatten(1)[:, :1].view(-1, *[1] * (x.ndim - 1))
        sampling = self._sampling
        nothing = sampling.calculate_denoised(sigma, torch.zeros_like(one), torch.zeros_like(one))
        return sampling.calculate_denoised(sigma, one, torch.zeros_like(one)) - nothing

    def kept(self, sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What a clean prediction holds of `x` itself: `c_skip x` in `D = c_skip x + c_out F`."""
        return self._sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
