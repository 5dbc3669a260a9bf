"""What the adapter reads off pictures at given noise levels: scores and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..adapter import DiscriminativeAdapter
from ..backends.diffusers import score_function, text_vectors
from ..features import read_features
from ..measure import add_noise, conditioning


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

    As in training every pair is a pass of its own, with its text as the UNet's context, and the
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
    flat = [text for each in texts for text in each]
    vectors = text_vectors(pipeline, flat, adapter.config.text)
    context, inputs = conditioning(pipeline, flat, latents.shape[-2:])
    found = []
    for level, each in zip(levels, noise, strict=True):
        noisy = torch.cat([add_noise(pipeline, one, each, level) for one in latents])
        score = score_function(pipeline.unet, adapter, level, context, vectors, **inputs)
        found.append(score(noisy.to(pipeline.unet.dtype)).cpu().view(latents.shape[:2]))
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
    """Boxes of phrases, and how sure they are.

    Args:
        pipeline, adapter, levels: see :func:`matching_scores`.
        latents: `[B, C, h, w]` scaled latents.
        phrases: one per picture.
        noise: `[T, B, C, h, w]`.

    Returns:
        Per timestep boxes `[B, Q, 4]`, normalised (cx, cy, w, h), and their confidence `[B, Q]`,
        both float32 on the CPU.
    """
    context, inputs = conditioning(pipeline, phrases, latents.shape[-2:])
    unet, found = pipeline.unet, []
    for level, each in zip(levels, noise, strict=True):
        noisy = add_noise(pipeline, latents, each, level).to(unet.dtype)

        def forward(noisy: torch.Tensor = noisy, level: int = level) -> None:
            unet(noisy, level, context, **inputs)

        features = read_features(unet, adapter.config.tap, forward)
        times = torch.full((len(latents),), level, device=features.device)
        output = adapter(features.float(), times)
        found.append((output.boxes.cpu(), 1 - output.logits.softmax(-1)[..., -1].cpu()))
    return found
