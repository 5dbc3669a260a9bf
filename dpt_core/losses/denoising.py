"""The denoising loss of tuning."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import mse_loss


def denoising_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the backbone's prediction.

    Args:
        prediction, target: `[B, C, H, W]`, or packed `[B, L, C]`, noise (or velocity), any
            floating dtype.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: shapes disagree.
    """
    if prediction.ndim not in (3, 4) or prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must both be [B, C, H, W] or [B, L, C]; got "
            f"{list(prediction.shape)} and {list(target.shape)}"
        )
    return mse_loss(prediction.float(), target.float())


def denoising_target(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What a backbone is trained to predict under a scheduler's prediction type.

    Args:
        scheduler: diffusers' `DDPMScheduler`.
        latents, noise: `[B, C, H, W]`, both of unit variance.
        timesteps: `[B]` int.

    Raises:
        ValueError: a prediction type other than epsilon and v_prediction.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"prediction type must be epsilon or v_prediction; got {kind!r}")
