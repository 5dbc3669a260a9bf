"""Which pictures are best, by their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ranked(scores: Sequence[float]) -> list[int]:
    """Indices of scores, the best first; of equals, the earlier one. NaN comes last."""
    return sorted(range(len(scores)), key=lambda i: (math.isnan(scores[i]), -scores[i]))


def select_best(scores: Sequence[float], count: int, minimum: float = -math.inf) -> list[int]:
    """Indices of the best scores, the best first.

    Args:
        scores: one per picture, higher is better; NaN never passes.
        count: how many at most, ≥ 1.
        minimum: the least score that passes.

    Returns:
        Up to `count` indices; none where no score reaches `minimum`.

    Raises:
        ValueError: `count` is below 1, or `minimum` is no number.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if math.isnan(minimum):
        raise ValueError("minimum must be a number; got nan")
    return [index for index in ranked(scores) if scores[index] >= minimum][:count]
