"""Alignment scores of finished pictures, and of a run as it goes, on a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import nn

from .adapter import DiscriminativeAdapter
from .backends.diffusers import LAST_TIMESTEP, check_unet, rows_of, score_function, text_vectors

TIMESTEP = 500
DRAWS = 4

ROWS = 16
"""Pictures times draws that go through the UNet together, where there are fewer pictures."""


class Conditioning(NamedTuple):
    """What the UNet is told about `B` pictures.

    Attributes:
        context: `[B, L, E]` what it attends to.
        inputs: further keyword inputs, of SDXL only.
    """

    context: torch.Tensor
    inputs: dict[str, Any]


def alignment_scores(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    pictures: np.ndarray,
    prompts: Sequence[str],
    timestep: int = TIMESTEP,
    draws: int = DRAWS,
    seed: int = 0,
) -> torch.Tensor:
    """How well finished pictures agree with their prompts: what `DPT_AlignmentScore` computes.

    A picture is encoded, noised to one timestep, and scored; the score is the mean over the draws.
    All pictures share each draw, so their scores compare.

    Args:
        pipeline: a diffusers pipeline of Stable Diffusion 1.x, 2.x or SDXL.
        adapter: the adapter, on the pipeline's device.
        pictures: `[N, H, W, 3]` uint8.
        prompts: one per picture.
        timestep: noise level in [0, 999] at which the adapter reads.
        draws: noise draws to average over, ≥ 1.
        seed: seed of the noise.

    Returns:
        `[N]` float32 in [-1, 1], on the CPU.

    Raises:
        ValueError: numbers of pictures and prompts differ, a number is out of range, or the adapter
            does not fit the model.
    """
    if len(pictures) != len(prompts):
        raise ValueError(f"expected a prompt per picture; got {len(prompts)} for {len(pictures)}")
    latents = encode_pictures(pipeline, pictures)
    return latent_scores(pipeline, adapter, latents, prompts, timestep, draws, seed)


@torch.no_grad()
def latent_scores(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    latents: torch.Tensor,
    prompts: Sequence[str],
    timestep: int = TIMESTEP,
    draws: int = DRAWS,
    seed: int = 0,
) -> torch.Tensor:
    """As :func:`alignment_scores`, of scaled latents `[N, C, h, w]`."""
    if not 0 <= timestep <= LAST_TIMESTEP:
        raise ValueError(f"timestep must be in [0, {LAST_TIMESTEP}]; got {timestep}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1; got {draws}")
    check_unet(pipeline.unet, adapter.config)
    text = text_vectors(pipeline, prompts, adapter.config.text)
    given = conditioning(pipeline, prompts, latents.shape[-2:])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, *latents[0].shape, generator=generator).to(latents)
    scores = []
    for some in noise.split(max(1, ROWS // len(latents))):
        rows = torch.arange(len(latents), device=latents.device).repeat(len(some))
        noisy = add_noise(
            pipeline, latents[rows], some.repeat_interleave(len(latents), dim=0), timestep
        )
        inputs = rows_of(given.inputs, rows, len(latents))
        score = score_function(
            pipeline.unet, adapter, timestep, given.context[rows], text[rows], **inputs
        )
        scores.append(score(noisy.to(pipeline.unet.dtype)).cpu().view(len(some), -1))
    return torch.cat(scores).mean(0)


def encode_pictures(pipeline: Any, pictures: np.ndarray) -> torch.Tensor:
    """Pictures `[N, H, W, 3]` uint8 as scaled latents `[N, C, h, w]`, float32: the VAE's mean."""
    pixels = rearrange(torch.from_numpy(pictures.copy()), "n h w c -> n c h w")
    return encode_pixels(pipeline, pixels.float() / 127.5 - 1)


@torch.no_grad()
def encode_pixels(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures `[N, 3, H, W]` in [-1, 1] as scaled latents `[N, C, h, w]`, float32."""
    vae = pipeline.vae
    latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
    return latents.float() * vae.config.scaling_factor


@torch.no_grad()
def conditioning(pipeline: Any, prompts: Sequence[str], size: Sequence[int]) -> Conditioning:
    """Encode prompts as the pipeline does.

    Args:
        pipeline: a diffusers pipeline of Stable Diffusion 1.x, 2.x or SDXL.
        prompts: `B` prompts.
        size: (height, width) of the latents; SDXL is told the size of the picture.
    """
    encoded = pipeline.encode_prompt(
        list(prompts), num_images_per_prompt=1, device=pipeline.device,
        do_classifier_free_guidance=False,
    )  # fmt: skip
    context = encoded[0]
    if getattr(pipeline, "text_encoder_2", None) is None:
        return Conditioning(context, {})
    height, width = (side * pipeline.vae_scale_factor for side in size)
    sizes = torch.tensor([height, width, 0, 0, height, width]).to(context)
    added = {"text_embeds": encoded[2], "time_ids": sizes.repeat(len(context), 1)}
    return Conditioning(context, {"added_cond_kwargs": added})


def add_noise(
    pipeline: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: int
) -> torch.Tensor:
    """Noise scaled latents to a timestep: `√ᾱ x + √(1 − ᾱ) ε`."""
    kept = pipeline.scheduler.alphas_cumprod[timestep].to(latents)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


@contextmanager
def watching_scores(
    unet: nn.Module,
    adapter: DiscriminativeAdapter,
    text: torch.Tensor,
    reader: nn.Module | None = None,
) -> Iterator[list[torch.Tensor]]:
    """Score what a guided pipeline feeds its UNet, without changing it.

    Args:
        unet: the UNet of a pipeline of Stable Diffusion 1.x or 2.x that runs with guidance.
        adapter: the adapter, on the UNet's device.
        text: `[B, D]` text vectors of the prompts, one row per picture.
        reader: the UNet that the adapter reads, for example with its LoRA; by default `unet`. A
            UNet that is also self-correcting needs a copy here, or reading would correct.

    Yields:
        The scores as they come, `[B]` per step.

    Raises:
        ValueError: the adapter does not fit the UNet.
    """
    reader = unet if reader is None else reader
    check_unet(reader, adapter.config)
    scores: list[torch.Tensor] = []
    inside = False

    def watch(module: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal inside
        if inside:
            return
        names = ("sample", "timestep", "encoder_hidden_states")
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        z, timestep, context = (inputs[name] for name in names)
        if len(z) != 2 * len(text):  # self-correction's own pass
            return
        rows = slice(len(text), None)
        inside = True
        try:
            with torch.no_grad():
                score = score_function(reader, adapter, timestep, context[rows], text)
                scores.append(score(z[rows]).cpu())
        finally:
            inside = False

    hook = unet.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield scores
    finally:
        hook.remove()
