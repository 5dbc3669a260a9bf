"""The loss of score-weighted tuning, after DiffusionNFT (arXiv 2509.16117)."""

from __future__ import annotations

import torch


def score_weighted_loss(
    prediction: torch.Tensor, untuned: torch.Tensor, target: torch.Tensor, advantage: torch.Tensor
) -> torch.Tensor:
    """Pull a prediction towards good pictures and push it away from bad ones.

    `w ‖v₁ − v‖² + (1 − w) ‖2 v₀ − v₁ − v‖²` with `w = (1 + A)/2` is, up to what does not depend on
    v₁, `‖v₁ − v₀ − A (v − v₀)‖²`, and that is computed here. Where the advantage A is 0 the
    prediction is held to the untuned one.

    Args:
        prediction: `[B, ...]`, v₁.
        untuned: like it, v₀ of the model before tuning, without gradient.
        target: like it, v, what a denoiser would be trained to predict.
        advantage: `[B]` in [-1, 1].

    Returns:
        The mean, a scalar.
    """
    shape = (-1, *[1] * (prediction.ndim - 1))
    wanted = untuned + advantage.view(shape).to(target) * (target - untuned)
    return (prediction.float() - wanted.float()).square().mean()
