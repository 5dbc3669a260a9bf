"""The denoising loss of tuning."""

from __future__ import annotations

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
