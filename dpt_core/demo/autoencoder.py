"""The demo's autoencoder: pictures of shapes in four latent channels at an eighth of their side."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import avg_pool2d

from ..shapes.scene import BACKGROUND

POINT = -20.0
"""Logarithm of a variance that is none."""


class AutoencoderTask(nn.Module):
    """Error of pictures, with latents that a small denoiser can learn.

    Left alone, four channels hold colours in a tangle, and a denoiser paints things in two of them.
    So three channels follow the mean colour of their 8 × 8 pixels, the fourth is free, and the
    decoder reads latents with noise.

    Args:
        vae: diffusers' `AutoencoderKL`.
        noise: largest standard deviation of the noise, in the units of colours in [-1, 1].
        pull: weight of what keeps the free channel, and the encoder's own variance, near unit size.
    """

    def __init__(self, vae: nn.Module, noise: float = 0.1, pull: float = 1e-4) -> None:
        super().__init__()
        self.vae, self.noise, self.pull = vae, noise, pull

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        latents = self.vae.encode(pictures).latent_dist
        size = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * self.noise
        noisy = latents.mean + size * torch.randn_like(latents.mean)
        colours = avg_pool2d(pictures, pictures.shape[-1] // latents.mean.shape[-1])
        free = latents.mean[:, 3:].float()
        return picture_error(self.vae.decode(noisy).sample.float(), pictures) | {
            "colours": 4 * (latents.mean[:, :3].float() - colours).square().mean(),
            "pull": self.pull * (free.square().mean() + latents.logvar.float().square().mean()),
        }


def picture_error(drawn: torch.Tensor, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Error of pixels, five times as heavy where a thing is, and of edges."""
    background = torch.tensor(BACKGROUND, device=pictures.device) / 127.5 - 1
    differs = (pictures - background[:, None, None]).abs().amax(1, keepdim=True)
    emphasis = 1 + 4 * (differs > 0.05).float()  # [B, 1, H, W]
    error = (drawn - pictures).abs() + (drawn - pictures).square()
    edges = ((drawn.diff(dim=axis) - pictures.diff(dim=axis)).abs().mean() for axis in (2, 3))
    return {"pixels": (error * emphasis).mean(), "edges": sum(edges)}


@torch.no_grad()
def whiten(vae: nn.Module, pictures: torch.Tensor, scale: float) -> None:
    """Give the latents zero mean and covariance `1/scale²`, in place, without changing pictures.

    Stable Diffusion multiplies latents by a fixed factor and expects unit variance. A linear map
    into the encoder's last convolution and its inverse into the decoder's first one see to that. No
    loss has asked how much noise latents bear, so a sample of them is made to be their mean.

    Args:
        vae: diffusers' `AutoencoderKL`.
        pictures: `[N, 3, H, W]` in [-1, 1], a sample of what it will see.
        scale: the latent scaling factor.
    """
    means = rearrange(vae.encode(pictures).latent_dist.mean, "b c h w -> (b h w) c").double()
    middle, covariance = means.mean(0), torch.cov(means.T)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T / scale
    channels = len(middle)
    weight, bias = vae.quant_conv.weight[:, :, 0, 0], vae.quant_conv.bias
    into = root.to(weight)
    old_weight, old_bias = weight[:channels].clone(), bias[:channels].clone()
    vae.quant_conv.weight[:channels, :, 0, 0] = into @ old_weight
    vae.quant_conv.bias[:channels] = into @ (old_bias - middle.to(weight))
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = POINT
    after, bias = vae.post_quant_conv.weight, vae.post_quant_conv.bias
    old = after[:, :, 0, 0].clone()
    after[:, :, 0, 0] = old @ root.inverse().to(weight)
    bias += old @ middle.to(weight)
