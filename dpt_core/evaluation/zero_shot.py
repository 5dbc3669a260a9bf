"""Alignment without an adapter: how well the model itself denoises a picture, given its prompt.

The paper's zero-shot baseline (Section 4.2): a text fits a picture if the model predicts the noise
in it well when told that text. No part of it is learned for the purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..backbones.registry import backbone_of
from ..reading import check_reading, encode_pictures, noise_draws, noised


@torch.no_grad()
def denoising_errors(
    pipeline: Any,
    pictures: np.ndarray,
    prompts: Sequence[str],
    timesteps: Sequence[int],
    draws: int,
    seed: int = 0,
) -> np.ndarray:
    """Mean squared error of the model's prediction at noise levels, `[T, N]`.

    All pictures share each draw of noise, so that their errors compare.

    Args:
        pipeline: a diffusers pipeline.
        pictures: `[N, H, W, 3]` uint8.
        prompts: one per picture.
        timesteps: `T` noise levels in [0, 999].
        draws: noise draws to average over, ≥ 1.
        seed: of the noise.

    Raises:
        ValueError: a number is out of range, or the model predicts something unknown.
    """
    for timestep in timesteps:
        check_reading(timestep, draws)
    backbone = backbone_of(pipeline)
    latents = encode_pictures(pipeline, pictures)
    inputs = backbone.conditioning(prompts, latents.shape[-2:])
    found = np.zeros((len(timesteps), len(pictures)))
    for row, timestep in enumerate(timesteps):
        for noise in noise_draws(latents, draws, seed):
            noise = noise.expand_as(latents)
            call = noised(backbone, latents, noise, timestep, inputs)
            predicted = backbone.run(backbone.module, call).float()
            clean, added = backbone.packed(latents), backbone.packed(noise)
            error = predicted - backbone.target(clean, added, call.sigmas())
            found[row] += error.square().flatten(1).mean(1).cpu().numpy() / draws
    return found
