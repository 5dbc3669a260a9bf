"""Which grounding query answers for which true box: DETR's bipartite matching."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, generalized_box_iou_loss

from .boxes import BoxTargets

GIOU_GUARD = 1e-12
"""Keeps 0/0 out of the IoU. torchvision's default of 1e-7 shifts the loss of a box that covers 1%
of the picture by 1e-5; this one shifts nothing that float32 could show."""


class Matching(NamedTuple):
    """`M` pairs of a query and a true box, image after image.

    Attributes:
        images: `[M]` index of the image.
        queries: `[M]` index of its grounding query, ascending within an image.
        targets: `[M]` index of the true box among all `N` of the batch.
    """

    images: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor


@torch.no_grad()
def match(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    targets: BoxTargets,
    token_classes: torch.Tensor,
    cost_class: float = 1.0,
    cost_bbox: float = 5.0,
    cost_giou: float = 2.0,
) -> Matching:
    """Give every true box a query of its own, at the least total cost.

    The cost of a pair is `−class·Σ_k softmax(logits)_k·token_classes_k + bbox·|b − b̂|₁ − giou·GIoU`
    (DETR, arXiv 2005.12872; class part as in MDETR, arXiv 2104.12763). Coefficients default to the
    published ones.

    Args:
        logits: `[B, Q, K]` class logits.
        boxes: `[B, Q, 4]` predicted normalised (cx, cy, w, h).
        targets: true boxes of the `B` images.
        token_classes: `[N, K]` what :meth:`~dpt_core.boxes.BoxTargets.token_classes` gives.

    Returns:
        One pair per box; `Q` pairs in an image that has more boxes than queries.

    Raises:
        ValueError: a cost is not finite, because a prediction is not.
    """
    images = targets.images()
    wanted = targets.boxes.float()[:, None].expand(-1, boxes.shape[1], -1)
    found = boxes.float()[images]
    named = (logits.float().softmax(-1)[images] * token_classes[:, None]).sum(-1)
    giou_loss = generalized_iou_loss(found, wanted)
    costs = (
        cost_bbox * (found - wanted).abs().sum(-1) - cost_class * named + cost_giou * giou_loss
    )  # [N, Q]; 1 − GIoU in place of −GIoU shifts every pair alike
    if not costs.isfinite().all():
        raise ValueError(
            "the adapter's logits or boxes are not finite: training has diverged. Resume from an "
            "earlier checkpoint with a smaller learning rate"
        )
    return _assign(costs, targets)


def _assign(costs: torch.Tensor, targets: BoxTargets) -> Matching:
    rows: list[tuple[int, int, int]] = []
    offset = 0
    for image, own in enumerate(costs.cpu().split(targets.counts)):
        pairs = linear_sum_assignment(own.T.numpy())
        rows += [(image, int(q), offset + int(n)) for q, n in zip(*pairs, strict=True)]
        offset += len(own)
    table = torch.tensor(rows, dtype=torch.long, device=costs.device).reshape(-1, 3)
    return Matching(*table.unbind(1))


def generalized_iou_loss(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`1 − GIoU` of boxes pair by pair.

    Args:
        boxes, others: `[..., 4]` (cx, cy, w, h) in any unit, same shape.

    Returns:
        `[...]` in [0, 2].
    """
    corners = (box_convert(each, "cxcywh", "xyxy") for each in (boxes, others))
    return generalized_box_iou_loss(*corners, eps=GIOU_GUARD)
