"""Pictures as scaled latents and back, with the autoencoders of diffusers."""

from __future__ import annotations

from typing import Any

import torch


def cell_of(vae: Any) -> int:
    """Pixels per side of a latent's cell."""
    doublings = getattr(vae, "temperal_downsample", None)  # diffusers' spelling
    return 2 ** (len(vae.config.block_out_channels) - 1 if doublings is None else len(doublings))


def encode(vae: Any, pixels: torch.Tensor, *, sample: bool = False) -> torch.Tensor:
    """Pictures `[B, 3, H, W]` in [-1, 1] as scaled latents `[B, C, h, w]`, float32.

    Args:
        vae: `AutoencoderKL`, or one of videos (Qwen-Image), for which a picture is one frame.
        pixels: sides are multiples of the cell.
        sample: draw from what the autoencoder gives; otherwise its mode.
    """
    pixels = pixels.to(vae.device, vae.dtype)
    found = vae.encode(pixels[:, :, None] if _is_video(vae) else pixels).latent_dist
    latents = (found.sample() if sample else found.mode()).float()
    shift, scale = _moments(vae, latents)
    latents = (latents - shift) * scale
    return latents[:, :, 0] if _is_video(vae) else latents


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents `[B, C, h, w]` as pictures `[B, 3, H, W]`, about in [-1, 1], float32."""
    latents = latents[:, :, None] if _is_video(vae) else latents
    shift, scale = _moments(vae, latents)
    pictures = vae.decode((latents / scale + shift).to(vae.device, vae.dtype)).sample.float()
    return pictures[:, :, 0] if _is_video(vae) else pictures


def _is_video(vae: Any) -> bool:
    return getattr(vae.config, "latents_mean", None) is not None and hasattr(
        vae, "temperal_downsample"
    )


def _moments(vae: Any, latents: torch.Tensor) -> tuple[Any, Any]:
    """What is taken from latents, and what they are then multiplied with."""
    if not _is_video(vae):
        return getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor
    mean, deviation = (
        torch.tensor(values).to(latents).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1 / deviation
