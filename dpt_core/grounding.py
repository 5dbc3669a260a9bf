"""Where things are: boxes and confidences of the grounding queries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torchvision.ops import box_convert


class Grounding(NamedTuple):
    """Boxes of one latent batch.

    Attributes:
        boxes: `[B, Q, 4]` corners (x0, y0, x1, y1) in pixels.
        scores: `[B, Q]` confidence in [0, 1].
    """

    boxes: torch.Tensor
    scores: torch.Tensor


def ground(logits: torch.Tensor, boxes: torch.Tensor, sizes: torch.Tensor) -> Grounding:
    """Turn the grounding queries' answers into boxes with a confidence.

    Args:
        logits: `[B, Q, K]` class logits, the last one "no object".
        boxes: `[B, Q, 4]` normalised (cx, cy, w, h).
        sizes: `[B, 2]` picture (height, width) in pixels.

    Returns:
        Confidence is `1 − softmax(no object)`; queries keep their order.
    """
    corners = box_convert(boxes, "cxcywh", "xyxy")
    height, width = sizes.to(corners).unbind(1)
    scale = torch.stack((width, height, width, height), dim=1)
    return Grounding(corners * scale[:, None], 1 - logits.softmax(-1)[..., -1])
