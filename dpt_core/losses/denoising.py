"""The denoising loss of tuning."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss
from torchvision.ops import box_convert


def signal_to_noise(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio `ᾱ / (1 − ᾱ)`.

    Args:
        timesteps: `[B]` int, below the length of `alphas_cumprod`.
        alphas_cumprod: `[T]` ᾱ of the noise schedule, in (0, 1).

    Returns:
        `[B]` float32.
    """
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alphas / (1 - alphas)


def denoising_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    timesteps: torch.Tensor | None = None,
    alphas_cumprod: torch.Tensor | None = None,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """Mean squared error of the backbone's prediction, optionally weighted per image.

    The weight is `min(SNR, γ) / SNR` (Min-SNR, arXiv 2303.09556), right for epsilon prediction
    only; the published run uses none.

    Args:
        prediction, target: `[B, C, H, W]` noise (or velocity), any floating dtype.
        timesteps: `[B]`, with `snr_gamma`.
        alphas_cumprod: `[T]`, with `snr_gamma`.
        snr_gamma: γ, above 0; 5 in that paper. None for the plain mean.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: shapes disagree, or γ comes without timesteps and schedule.
    """
    errors = _errors(prediction, target).flatten(1).mean(1)
    return _weighted_mean(errors, timesteps, alphas_cumprod, snr_gamma)


def box_denoising_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    boxes: torch.Tensor,
    timesteps: torch.Tensor | None = None,
    alphas_cumprod: torch.Tensor | None = None,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """The denoising loss inside one box per image; a box below one latent cell counts 0.

    The published function, which its training does not call, takes height for width (its numbers
    come out when latents are transposed) and fails where a box is below one cell.

    Args:
        prediction, target: `[B, C, H, W]`.
        boxes: `[B, 4]` normalised (cx, cy, w, h), rounded down to latent cells.
        timesteps, alphas_cumprod, snr_gamma: as in :func:`denoising_loss`.

    Returns:
        Scalar, float32: mean over images of the mean inside the box.

    Raises:
        ValueError: shapes disagree, or γ comes without timesteps and schedule.
    """
    if boxes.shape != (len(prediction), 4):
        raise ValueError(f"boxes must be [{len(prediction)}, 4]; got {list(boxes.shape)}")
    errors = _errors(prediction, target).mean(1)
    corners = box_convert(boxes.float(), "cxcywh", "xyxy").double()  # x·W is exact in double
    x0, y0, x1, y1 = corners[..., None].unbind(1)

    def inside(size: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        cells = torch.arange(size, device=boxes.device)
        return (cells >= (low * size).floor()) & (cells < (high * size).floor())

    height, width = errors.shape[1:]
    mask = inside(height, y0, y1)[:, :, None] & inside(width, x0, x1)[:, None, :]
    cells = mask.sum((1, 2)).clamp(min=1)
    errors = (errors * mask).sum((1, 2)) / cells
    return _weighted_mean(errors, timesteps, alphas_cumprod, snr_gamma)


def _errors(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must both be [B, C, H, W]; got {list(prediction.shape)} and "
            f"{list(target.shape)}"
        )
    return mse_loss(prediction.float(), target.float(), reduction="none")


def _weighted_mean(
    errors: torch.Tensor,
    timesteps: torch.Tensor | None,
    alphas_cumprod: torch.Tensor | None,
    snr_gamma: float | None,
) -> torch.Tensor:
    if snr_gamma is None:
        return errors.mean()
    if timesteps is None or alphas_cumprod is None:
        raise ValueError("snr_gamma needs timesteps and alphas_cumprod")
    if timesteps.shape != errors.shape:
        raise ValueError(f"timesteps must be {list(errors.shape)}; got {list(timesteps.shape)}")
    ratio = signal_to_noise(timesteps, alphas_cumprod)
    return (errors * ratio.clamp(max=snr_gamma) / ratio).mean()
