"""Which of the tokens of a language model are the prompt's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import torch


def own_span(
    ids: Sequence[Any], template: Sequence[Any], same: Callable[[Any, Any], bool] = eq
) -> tuple[int, int]:
    """First and last place (exclusive) of a prompt's own tokens.

    The template is what the tokens of the prompt and of no prompt share at both ends.

    Args:
        ids: tokens of the prompt in its template, without padding.
        template: tokens of the empty prompt in it.
        same: whether two tokens are one.
    """
    before = _shared(ids, template, same)
    after = _shared(ids[before:][::-1], template[before:][::-1], same)
    return before, len(ids) - after


def mean_of(states: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Mean of states `[L, D]` from `first` to `last` (exclusive), `[D]` float32; zeros of none."""
    own = states[max(first, 0) : max(last, 0)].float()
    return own.mean(0) if len(own) else own.new_zeros(states.shape[-1])


def moments_of(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale of text vectors `[N, D]`, `[D]` each: the adapter's `text_mean` and
    `text_scale`. No dimension is blown up more than a hundredfold of the usual."""
    vectors = vectors.float()
    scale = vectors.std(0, correction=0)
    return vectors.mean(0), scale.clamp(min=scale.mean() / 100).clamp(min=1e-6)


def _shared(one: Sequence, other: Sequence, same: Callable[[Any, Any], bool]) -> int:
    """How many tokens two lists begin with alike."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: same(*pair), pairs))
