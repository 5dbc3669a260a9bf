"""The host's pictures as core draws them: `[H, W, 3]` uint8, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


def to_pictures(batches: Iterable[torch.Tensor]) -> list[np.ndarray]:
    """Batches `[B, H, W, C]` in [0, 1] as pictures `[H, W, 3]` uint8; grey becomes colour, and
    transparency is left out."""
    pictures = []
    for batch in batches:
        for image in batch.float().clamp(0, 1).mul(255).round().byte().cpu().numpy():
            pictures.append(
                image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, -1)
            )
    return pictures


def to_image(picture: Any) -> torch.Tensor:
    """A picture `[H, W, 3]` uint8, a PIL image in RGB, or pictures `[B, H, W, 3]`, as IMAGE `[B, H,
    W, 3]` in [0, 1]."""
    pictures = torch.from_numpy(np.array(picture)).float() / 255
    return pictures if pictures.ndim == 4 else pictures[None]
