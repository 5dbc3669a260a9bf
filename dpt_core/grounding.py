"""Where things are: boxes and confidences of the grounding queries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torchvision.ops import box_convert, nms

from .settings import check_number

THRESHOLD = 0.5
MAX_BOXES = 10
OVERLAP = 0.5


class Grounding(NamedTuple):
    """Boxes of one latent batch, or of one picture without the leading `B`.

    Attributes:
        boxes: `[B, Q, 4]` corners (x0, y0, x1, y1) in pixels.
        scores: `[B, Q]` confidence in [0, 1].
    """

    boxes: torch.Tensor
    scores: torch.Tensor


def ground(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    sizes: torch.Tensor,
    origins: torch.Tensor | None = None,
) -> Grounding:
    """Turn the grounding queries' answers into boxes with a confidence.

    Args:
        logits: `[B, Q, K]` class logits, the last one "no object".
        boxes: `[B, Q, 4]` normalised (cx, cy, w, h).
        sizes: `[B, 2]` (height, width) in pixels of what the adapter saw.
        origins: `[B, 2]` (y, x) of its upper left corner; by default it is the whole picture.

    Returns:
        Boxes in pixels with their :func:`confidence`; queries keep their order.
    """
    corners = box_convert(boxes, "cxcywh", "xyxy")
    scale = sizes.to(corners).flip(1).repeat(1, 2)
    pixels = corners * scale[:, None]
    if origins is not None:
        pixels = pixels + origins.to(corners).flip(1).repeat(1, 2)[:, None]
    return Grounding(pixels, confidence(logits))


def confidence(logits: torch.Tensor) -> torch.Tensor:
    """How sure queries are that there is a thing: `1 − softmax(no object)` of logits `[…, K]`."""
    return 1 - logits.softmax(-1)[..., -1]


def select_boxes(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    threshold: float = THRESHOLD,
    max_boxes: int = MAX_BOXES,
    iou: float = OVERLAP,
) -> Grounding:
    """The boxes worth showing: confident ones, without those that say the same again.

    The paper's evaluation only ranks boxes; threshold and non-maximum suppression are ours.

    Args:
        boxes: `[Q, 4]` corners (x0, y0, x1, y1) of one picture.
        scores: `[Q]` confidence in [0, 1]; NaN counts as none.
        threshold: keep boxes with a confidence above it, in [0, 1].
        max_boxes: keep at most so many, ≥ 1.
        iou: of two boxes that overlap more than this the less confident one goes, in [0, 1].

    Returns:
        `[N, 4]` and `[N]`, N ≤ max_boxes, the most confident first; of equals, the earlier query.

    Raises:
        ValueError: shapes disagree, or a number is out of range.
    """
    if boxes.shape != (len(scores), 4):
        raise ValueError(
            f"expected a box (x0, y0, x1, y1) per score; got boxes {list(boxes.shape)} and scores "
            f"{list(scores.shape)}"
        )
    if max_boxes < 1:
        raise ValueError(f"max_boxes must be at least 1; got {max_boxes}")
    check_number("threshold", threshold, 0.0, 1.0)
    sure = scores > threshold
    boxes, scores = boxes[sure], scores[sure]
    kept = nms(boxes.float(), scores.float(), iou)[:max_boxes]
    return Grounding(boxes[kept], scores[kept])


def box_mask(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where boxes are, as a mask.

    Args:
        boxes: `[N, 4]` corners (x0, y0, x1, y1) in pixels inside the picture; N may be 0.
        height, width: of the picture.

    Returns:
        `[height, width]` float32, 1 in a box and 0 elsewhere. Corners are rounded to whole pixels;
        every box has at least one.
    """
    mask, last = torch.zeros(height, width), torch.tensor([width - 1, height - 1])
    starts, ends = boxes.cpu().round().long().split(2, dim=1)
    starts = starts.minimum(last)
    ends = ends.maximum(starts + 1)
    for (x0, y0), (x1, y1) in zip(starts.tolist(), ends.tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    return mask
