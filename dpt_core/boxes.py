"""Boxes an image's phrases refer to, and when a predicted box counts as right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad
from torchvision.ops import box_convert, box_iou, generalized_box_iou

NORMALISER_GUARD = 1e-6
"""Added to token counts before dividing, as published: a box without tokens divides by it."""


@dataclass(frozen=True)
class BoxTargets:
    """The true boxes of `B` images, `N` in all, one after another.

    Every image may hold any number of boxes, none included: nothing is padded.

    Attributes:
        boxes: `[N, 4]` normalised (cx, cy, w, h) in [0, 1], width and height above 0.
        tokens: `[N, L]` bool, the tokens of the image's phrase that name the box.
        counts: `B` numbers of boxes, one per image.

    Raises:
        ValueError: shapes disagree, the counts do not add up to `N`, or a box has no area.
    """

    boxes: torch.Tensor
    tokens: torch.Tensor
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        number = sum(self.counts)
        if self.boxes.shape != (number, 4):
            raise ValueError(
                f"boxes must be [{number}, 4], as the counts {self.counts} say; "
                f"got {list(self.boxes.shape)}"
            )
        if self.tokens.ndim != 2 or len(self.tokens) != number:
            raise ValueError(
                f"tokens must be [{number}, L], one row per box; got {list(self.tokens.shape)}"
            )
        if not (self.boxes[:, 2:] > 0).all():
            raise ValueError("boxes must have a width and a height above 0: drop those without")

    @classmethod
    def join(cls, boxes: Sequence[torch.Tensor], tokens: Sequence[torch.Tensor]) -> BoxTargets:
        """Collate single images.

        Args:
            boxes: `B` tensors `[n, 4]`.
            tokens: `B` tensors `[n, l]`; shorter phrases are padded on the right.

        Raises:
            ValueError: an image's boxes and tokens differ in number, or a box has no area.
        """
        counts = tuple(len(each) for each in boxes)
        if counts != tuple(len(each) for each in tokens):
            raise ValueError(
                f"every box needs a row of tokens; got {counts} boxes and "
                f"{tuple(len(each) for each in tokens)} rows"
            )
        length = max((each.shape[1] for each in tokens), default=0)
        padded = [pad(each.bool(), (0, length - each.shape[1])) for each in tokens]
        return cls(torch.cat(list(boxes)), torch.cat(padded), counts)

    def to(self, device: torch.device | str) -> BoxTargets:
        """The same targets on another device."""
        return replace(self, boxes=self.boxes.to(device), tokens=self.tokens.to(device))

    def images(self) -> torch.Tensor:
        """`[N]` index of the image that each box belongs to."""
        counts = torch.tensor(self.counts, dtype=torch.long)
        return torch.arange(len(self.counts)).repeat_interleave(counts).to(self.boxes.device)

    def token_classes(self, classes: int) -> torch.Tensor:
        """The distribution over a query's `K` classes that each box asks for.

        Class `k` means "named by token k", the last one "no object". Rows sum to 1 (MDETR's loss).
        The published training meant this and computed rows of 0 and 1, since its collation passes
        the map through a boolean tensor: a box then weighs as much as its phrase has tokens.

        Args:
            classes: `K`.

        Returns:
            `[N, K]` float32.

        Raises:
            ValueError: a box is named by a token for which there is no class.
        """
        tokens, room = self.tokens.bool(), classes - 1
        if tokens[:, room:].any():
            raise ValueError(
                f"an adapter with {classes} classes can name tokens 0 to {room - 1}; a box is "
                f"named by token {int(tokens.any(0).nonzero().max())}: shorten the phrase"
            )
        rows = tokens[:, :room].float()
        rows = rows / (rows.sum(1, keepdim=True) + NORMALISER_GUARD)
        return pad(rows, (0, classes - rows.shape[1]))


def grounding_hits(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    truth: torch.Tensor,
    top: int = 1,
    threshold: float = 0.5,
    generalised: bool = False,
) -> torch.Tensor:
    """Whether one of the `top` most confident boxes finds the object (REC accuracy, P@top).

    The usual rule asks for an IoU of 0.5. The published figure thresholds the *generalised* IoU,
    which is never larger and therefore stricter: report both.

    Args:
        boxes: `[B, Q, 4]` predicted (cx, cy, w, h), in the units of `truth`.
        scores: `[B, Q]` confidence, higher is surer.
        truth: `[B, 4]` true (cx, cy, w, h), one box per image.
        top: how many boxes may try, 1 to Q.
        threshold: overlap from which on a box is right, in [0, 1].
        generalised: threshold the generalised IoU.

    Returns:
        `[B]` bool; its mean is the accuracy.

    Raises:
        ValueError: shapes disagree or `top` is out of range.
    """
    batch, queries = scores.shape
    if boxes.shape != (batch, queries, 4) or truth.shape != (batch, 4):
        raise ValueError(
            f"boxes and truth must be {[batch, queries, 4]} and {[batch, 4]}, as the scores say; "
            f"got {list(boxes.shape)} and {list(truth.shape)}"
        )
    if not 1 <= top <= queries:
        raise ValueError(f"top must be between 1 and the number of boxes, {queries}; got {top}")
    overlap = generalized_box_iou if generalised else box_iou
    best = scores.topk(top, dim=1).indices[..., None].expand(-1, -1, 4)
    tried = box_convert(boxes.float().gather(1, best), "cxcywh", "xyxy")
    found = box_convert(truth.float()[:, None], "cxcywh", "xyxy")
    hits = [
        (overlap(one, other) >= threshold).any() for one, other in zip(tried, found, strict=True)
    ]
    return torch.stack(hits) if hits else scores.new_zeros(0, dtype=torch.bool)
