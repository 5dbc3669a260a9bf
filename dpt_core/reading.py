"""What the adapter reads off finished pictures: picture → latent → noise → tap → score or boxes.

The host's nodes take the same steps through the host's own sampling; :func:`whole_cells` and
:func:`noise_draws` decide for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import interpolate

from .adapter import DiscriminativeAdapter
from .backbones.autoencoders import cell_of, encode
from .backbones.base import Backbone, BackboneCall, TapReached, rows_of
from .backbones.checks import check_adapter
from .backbones.registry import backbone_of
from .diffusers import branches, conditional_rows, score_function
from .grounding import confidence

TIMESTEP = 500
DRAWS = 4
LAST_TIMESTEP = 999

ROWS = 16
"""Pictures times draws that go through the network together, where there are fewer pictures."""


def whole_cells(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """Pictures `[B, C, H, W]`, stretched where a side is no multiple of a latent's cell.

    An autoencoder would cut the edges off instead, and a thing there would not count.

    Args:
        pictures: of any size and range.
        cell: pixels per side of a cell, ≥ 1.
    """
    size = tuple(pictures.shape[-2:])
    whole = tuple(max(1, round(side / cell)) * cell for side in size)
    return pictures if whole == size else interpolate(pictures, whole, mode="bilinear")


def noise_draws(like: torch.Tensor, draws: int, seed: int) -> torch.Tensor:
    """Noise `[draws, C, h, w]` for latents `[B, C, h, w]`; all pictures share each draw."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, *like.shape[1:], generator=generator).to(like)


def noise_of(like: torch.Tensor, levels: int, seeds: Sequence[int]) -> torch.Tensor:
    """Noise `[T, B, C, h, w]` that a picture has whatever its neighbours are.

    Args:
        like: `[B, C, h, w]` latents.
        levels: `T`.
        seeds: one per picture.
    """
    each = [
        torch.randn((levels, *like.shape[1:]), generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(each, dim=1).to(like)


def check_reading(timestep: int, draws: int) -> None:
    """Refuse what cannot be read.

    Raises:
        ValueError: a number is out of range.
    """
    if not 0 <= timestep <= LAST_TIMESTEP:
        raise ValueError(f"timestep must be in [0, {LAST_TIMESTEP}]; got {timestep}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1; got {draws}")


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
        pipeline: a diffusers pipeline of a family in :mod:`dpt_core.backbones.registry`.
        adapter: the adapter, on the pipeline's device.
        pictures: `[N, H, W, 3]` uint8, of any size.
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
    check_reading(timestep, draws)
    backbone = _fitting(pipeline, adapter)
    text = backbone.text_vectors(prompts, adapter.config.text)
    inputs = backbone.conditioning(prompts, latents.shape[-2:])
    scores = []
    for some in noise_draws(latents, draws, seed).split(max(1, ROWS // len(latents))):
        rows = torch.arange(len(latents), device=latents.device).repeat(len(some))
        noise = some.repeat_interleave(len(latents), dim=0)
        call = noised(backbone, latents[rows], noise, timestep, rows_of(inputs, rows, len(latents)))
        score = score_function(backbone, adapter, call, text[rows])
        scores.append(score(call.x).cpu().view(len(some), -1))
    return torch.cat(scores).mean(0)


@torch.no_grad()
def latent_errors(
    pipeline: Any,
    latents: torch.Tensor,
    prompts: Sequence[str],
    levels: Sequence[int],
    draws: int = 1,
    seed: int = 0,
) -> torch.Tensor:
    """Mean squared error of what the model itself predicts, told the prompt.

    All pictures share each draw of noise, so that their errors compare.

    Args:
        pipeline: a diffusers pipeline.
        latents: `[N, C, h, w]` scaled latents of finished pictures.
        prompts: one per picture.
        levels: `T` noise levels in [0, 999].
        draws: noise draws to average over, ≥ 1.
        seed: of the noise.

    Returns:
        `[T, N]` float32, ≥ 0, on the CPU.

    Raises:
        ValueError: a number is out of range, or the model predicts something unknown.
    """
    for level in levels:
        check_reading(level, draws)
    backbone = backbone_of(pipeline)
    inputs = backbone.conditioning(prompts, latents.shape[-2:])
    found = torch.zeros(len(levels), len(latents))
    for row, level in enumerate(levels):
        for one in noise_draws(latents, draws, seed):
            noise = one.expand_as(latents)
            call = noised(backbone, latents, noise, level, inputs)
            predicted = backbone.run(backbone.module, call).float()
            clean, added = backbone.packed(latents), backbone.packed(noise)
            error = predicted - backbone.target(clean, added, call.sigmas())
            found[row] += error.square().flatten(1).mean(1).cpu() / draws
    return found


@torch.no_grad()
def matching_scores(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    latents: torch.Tensor,
    texts: Sequence[Sequence[str]],
    levels: Sequence[int],
    noise: torch.Tensor,
) -> torch.Tensor:
    """Alignment scores of pairs of pictures and texts.

    As in training every pair is a pass of its own, with its text as the network's context, and the
    pairs of an example share noise and timestep.

    Args:
        pipeline: the model that the adapter reads.
        adapter: the adapter, on the pipeline's device.
        latents: `[P, B, C, h, w]` scaled latents of `P` pairs of each of `B` examples.
        texts: `P` times `B` texts.
        levels: `T` timesteps in [0, 999].
        noise: `[T, B, C, h, w]`.

    Returns:
        `[T, P, B]` float32 in [-1, 1], on the CPU.
    """
    backbone = _fitting(pipeline, adapter)
    flat = [text for each in texts for text in each]
    vectors = backbone.text_vectors(flat, adapter.config.text)
    inputs = backbone.conditioning(flat, latents.shape[-2:])
    found = []
    for level, each in zip(levels, noise, strict=True):
        repeated = each.repeat(len(latents), *[1] * (each.ndim - 1))
        call = noised(backbone, latents.flatten(0, 1), repeated, level, inputs)
        score = score_function(backbone, adapter, call, vectors)
        found.append(score(call.x).cpu().view(latents.shape[:2]))
    return torch.stack(found)


@torch.no_grad()
def read_boxes(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    latents: torch.Tensor,
    phrases: Sequence[str],
    levels: Sequence[int],
    noise: torch.Tensor,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Boxes of phrases, and how sure they are, at each noise level.

    Args:
        pipeline, adapter, levels: see :func:`matching_scores`.
        latents: `[B, C, h, w]` scaled latents.
        phrases: one per picture.
        noise: `[T, B, C, h, w]`.

    Returns:
        Per timestep boxes `[B, Q, 4]`, normalised (cx, cy, w, h), and their confidence `[B, Q]`,
        both float32 on the CPU.
    """
    backbone, found = _fitting(pipeline, adapter), []
    inputs = backbone.conditioning(phrases, latents.shape[-2:])
    for level, each in zip(levels, noise, strict=True):
        call = noised(backbone, latents, each, level, inputs)
        levels_told = backbone.path.level(call.sigmas())

        def read(features: torch.Tensor, told: torch.Tensor = levels_told) -> torch.Tensor:
            answer = adapter(features.float(), told)
            found.append((answer.boxes.cpu(), confidence(answer.logits).cpu()))
            raise TapReached

        with backbone.tapped(adapter.config.tap, call, read):
            backbone.run(backbone.module, call)
    return found


def encode_pictures(pipeline: Any, pictures: np.ndarray) -> torch.Tensor:
    """Pictures `[N, H, W, 3]` uint8 as scaled latents `[N, C, h, w]`, float32: the VAE's mean."""
    pixels = rearrange(torch.from_numpy(pictures.copy()), "n h w c -> n c h w")
    return encode_pixels(pipeline, pixels.float() / 127.5 - 1)


@torch.no_grad()
def encode_pixels(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures `[N, 3, H, W]` in [-1, 1], of any size, as scaled latents `[N, C, h, w]`."""
    vae = pipeline.vae
    return encode(vae, whole_cells(pixels, cell_of(vae) * backbone_of(pipeline).patch))


@contextmanager
def watching_scores(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    text: torch.Tensor,
    reader: Any = None,
) -> Iterator[list[torch.Tensor]]:
    """Score what a guided pipeline feeds its denoising network, without changing it.

    Args:
        pipeline: a diffusers pipeline.
        adapter: the adapter, on the pipeline's device.
        text: `[B, D]` text vectors of the prompts, one row per picture.
        reader: the pipeline whose network the adapter reads, for example with its LoRA; by default
            `pipeline`. A pipeline that is also self-correcting needs a copy here, or reading would
            correct.

    Yields:
        The scores as they come, `[B]` per pass with conditional rows.

    Raises:
        ValueError: the adapter does not fit the model.
    """
    watched = backbone_of(pipeline)
    read = _fitting(pipeline if reader is None else reader, adapter)
    scores: list[torch.Tensor] = []
    inside = False

    def watch(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal inside
        if inside:
            return
        call = watched.call(args, kwargs)
        part = call.select(conditional_rows(watched, call, branch()))
        if len(part.x) != len(text):  # an unconditional pass
            return
        inside = True
        try:
            with torch.no_grad():
                scores.append(score_function(read, adapter, part, text)(part.x).cpu())
        finally:
            inside = False

    with branches(watched.module) as branch:
        hook = watched.module.register_forward_pre_hook(watch, with_kwargs=True)
        try:
            yield scores
        finally:
            hook.remove()


def _fitting(pipeline: Any, adapter: DiscriminativeAdapter) -> Backbone:
    """The backbone of a pipeline that an adapter can read."""
    backbone = backbone_of(pipeline)
    check_adapter(backbone, adapter.config)
    return backbone


def noised(
    backbone: Backbone,
    latents: torch.Tensor,
    noise: torch.Tensor,
    level: int,
    inputs: dict[str, Any],
) -> BackboneCall:
    """A call of the network on clean latents `[B, ...]` at a noise level: `α x₀ + s ε`."""
    sigma = torch.full((len(latents),), backbone.path.sigma(level), device=latents.device)
    return noised_at(backbone, latents, noise, sigma, inputs)


def renoised(
    backbone: Backbone, call: BackboneCall, clean: torch.Tensor, noise: torch.Tensor, level: int
) -> BackboneCall:
    """A call on its clean predictions `[R, ...]`, like its latents, with noise at a level."""
    sigma = torch.full_like(call.sigmas(), backbone.path.sigma(level))
    return call.at(_mixed(backbone, clean, noise, sigma), sigma)


def noised_at(
    backbone: Backbone,
    latents: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    inputs: dict[str, Any],
) -> BackboneCall:
    """As :func:`noised`, each latent at a level of its own: `sigma` `[B]`."""
    mixed = _mixed(backbone, latents, noise, sigma)
    return BackboneCall(backbone.packed(mixed.to(backbone.module.dtype)), sigma, inputs)


def _mixed(
    backbone: Backbone, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """`α x₀ + s ε`."""
    shape = (-1, *[1] * (clean.ndim - 1))
    alpha, scale = (part.to(clean).view(shape) for part in backbone.path.weights(sigma))
    return alpha * clean + scale * noise
