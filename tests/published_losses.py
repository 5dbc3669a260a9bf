"""Parts of the published losses that its training does not use, and ours does not have.

They are here so that the recorded numbers of those variants stay explained.
"""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss
from torchvision.ops import box_convert

from dpt_core.boxes import BoxTargets


class CollatedTargets(BoxTargets):
    """BoxTargets whose class map went through a boolean tensor, as the published collation does.

    Rows hold 0 and 1 instead of summing to 1: a box weighs as much as its phrase has tokens.
    """

    def token_classes(self, classes: int) -> torch.Tensor:
        return (super().token_classes(classes) > 0).float()


def signal_to_noise(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio `ᾱ / (1 − ᾱ)`, `[B]` float32.

    Args:
        timesteps: `[B]` int, below the length of `alphas_cumprod`.
        alphas_cumprod: `[T]` ᾱ of the noise schedule, in (0, 1).
    """
    alphas = alphas_cumprod[timesteps].float()
    return alphas / (1 - alphas)


def min_snr_loss(
    errors: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, gamma: float | None
) -> torch.Tensor:
    """Mean of errors per image `[B]`, weighted by `min(SNR, γ) / SNR` (arXiv 2303.09556).

    Right for epsilon prediction only; None for the plain mean, which the published run takes.
    """
    if gamma is None:
        return errors.mean()
    ratio = signal_to_noise(timesteps, alphas_cumprod)
    return (errors * ratio.clamp(max=gamma) / ratio).mean()


def box_errors(prediction: torch.Tensor, target: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Mean squared error inside one box per image, `[B]`; a box below one latent cell counts 0.

    The published function takes height for width (its numbers come out when latents are
    transposed) and fails where a box is below one cell.

    Args:
        prediction, target: `[B, C, H, W]`.
        boxes: `[B, 4]` normalised (cx, cy, w, h), rounded down to latent cells.
    """
    errors = mse_loss(prediction.float(), target.float(), reduction="none").mean(1)
    corners = box_convert(boxes.float(), "cxcywh", "xyxy").double()  # x·W is exact in double
    x0, y0, x1, y1 = corners[..., None].unbind(1)

    def inside(size: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        cells = torch.arange(size)
        return (cells >= (low * size).floor()) & (cells < (high * size).floor())

    height, width = errors.shape[1:]
    mask = inside(height, y0, y1)[:, :, None] & inside(width, x0, x1)[:, None, :]
    return (errors * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
