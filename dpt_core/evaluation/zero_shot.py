"""Alignment without an adapter: how well the model itself denoises a picture, given its prompt.

The paper's zero-shot baseline (Section 4.2): a text fits a picture if the model predicts the noise
in it well when told that text. No part of it is learned for the purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..reading import encode_pictures, latent_errors


def denoising_errors(
    pipeline: Any,
    pictures: np.ndarray,
    prompts: Sequence[str],
    timesteps: Sequence[int],
    draws: int,
    seed: int = 0,
) -> np.ndarray:
    """As :func:`~dpt_core.reading.latent_errors`, of pictures `[N, H, W, 3]` uint8."""
    latents = encode_pictures(pipeline, pictures)
    return latent_errors(pipeline, latents, prompts, timesteps, draws, seed).numpy()
