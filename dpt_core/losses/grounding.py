"""Referring expression comprehension: the criterion of DETR and MDETR on the grounding queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..boxes import NORMALISER_GUARD, BoxTargets
from ..matcher import Matching, generalized_iou_loss, match
from .weights import LossWeights

DEFAULT_WEIGHTS = LossWeights()


def grounding_losses(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    targets: BoxTargets,
    queries: torch.Tensor | None = None,
    tokens: torch.Tensor | None = None,
    token_mask: torch.Tensor | None = None,
    weights: LossWeights = DEFAULT_WEIGHTS,
) -> dict[str, torch.Tensor]:
    """Match queries with true boxes, then judge class, place and alignment (MDETR, 2104.12763).

    Args:
        logits: `[B, Q, K]` class logits, the last one "no object".
        boxes: `[B, Q, 4]` predicted normalised (cx, cy, w, h).
        targets: true boxes of the `B` images, on any device.
        queries: `[B, Q, P]` unit vectors of the queries; None leaves the alignment loss out.
        tokens: `[B, L, P]` unit vectors of the phrase's tokens, with `queries`.
        token_mask: `[B, L]` bool, see :func:`alignment_loss`.
        weights: coefficients of the matching, `eos_coef`, `temperature`.

    Returns:
        Scalars `ce`, `bbox`, `giou`, `contrastive_align` before their coefficients, float32, and
        `cardinality`, a figure for the log without gradient. Sums over boxes are divided by the
        number of boxes here, at least 1; the published code takes the mean over its processes.

    Raises:
        ValueError: shapes disagree, or a prediction is not finite.
    """
    _check(logits, boxes, targets, queries, tokens)
    targets = targets.to(logits.device)
    classes = targets.token_classes(logits.shape[-1])
    costs = (weights.cost_class, weights.cost_bbox, weights.cost_giou)
    matching = match(logits, boxes, targets, classes, *costs)
    count = max(sum(targets.counts), 1)
    found = boxes.float()[matching.images, matching.queries]
    wanted = targets.boxes.float()[matching.targets]
    losses = {
        "ce": class_loss(logits, classes, matching, weights.eos_coef) / count,
        "bbox": (found - wanted).abs().sum() / count,
        "giou": generalized_iou_loss(found, wanted).sum() / count,
        "cardinality": cardinality_error(logits, targets.counts),
    }
    if queries is not None and tokens is not None:
        named = targets.tokens.bool()
        align = alignment_loss(queries, tokens, named, matching, weights.temperature, token_mask)
        losses["contrastive_align"] = align / count
    return losses


def class_loss(
    logits: torch.Tensor, classes: torch.Tensor, matching: Matching, eos_coef: float
) -> torch.Tensor:
    """Cross entropy with the tokens that name a query's box, or with "no object".

    Args:
        logits: `[B, Q, K]`.
        classes: `[N, K]` target distribution of every true box.
        matching: which query answers for which box.
        eos_coef: weight of queries that answer for none.

    Returns:
        Scalar, summed over all queries.
    """
    likelihood = logits.float().log_softmax(-1)
    nothing = -eos_coef * likelihood[..., -1]
    at = (matching.images, matching.queries)
    something = -(likelihood[at] * classes[matching.targets]).sum(-1)
    return nothing.index_put(at, something).sum()


def alignment_loss(
    queries: torch.Tensor,
    tokens: torch.Tensor,
    named: torch.Tensor,
    matching: Matching,
    temperature: float = 0.07,
    token_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Queries near the tokens that name their box, and tokens near those queries.

    With `l = queries·tokens / τ` and `T⁺` the tokens that name the box of query i, the loss of a
    query is `logsumexp_t l_it − mean_{t∈T⁺} l_it`; a token's is the same along queries. Queries and
    tokens without a partner count nothing.

    Args:
        queries: `[B, Q, P]` unit vectors.
        tokens: `[B, L, P]` unit vectors.
        named: `[N, L]` bool, tokens that name each true box.
        matching: which query answers for which box.
        temperature: τ.
        token_mask: `[B, L]` bool, True where a token is no padding. Without it padding tokens count
            in the queries' logsumexp, as published; give it where most of a text is padding, as
            with CLIP's 77 tokens.

    Returns:
        Scalar: half the sum over both directions.
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarity = queries.float() @ tokens.float().mT / temperature  # [B, Q, L]
    positive = torch.zeros_like(similarity, dtype=torch.bool)
    positive[matching.images, matching.queries] = named[matching.targets]
    rivals = similarity
    if token_mask is not None:
        # The lowest number instead of −∞: a row of nothing but padding has a gradient, 0.
        lowest = torch.finfo(similarity.dtype).min
        rivals = similarity.masked_fill(~token_mask.bool()[:, None], lowest)

    def one_way(dim: int) -> torch.Tensor:
        partners = positive.sum(dim)
        attraction = (similarity * positive).sum(dim) / (partners + NORMALISER_GUARD)
        loss = rivals.logsumexp(dim) - attraction
        return loss.masked_fill(partners == 0, 0).sum()

    return (one_way(2) + one_way(1)) / 2


@torch.no_grad()
def cardinality_error(logits: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """How far the number of queries that see an object is from the truth; for the log only.

    Args:
        logits: `[B, Q, K]`.
        counts: `B` true numbers of boxes.

    Returns:
        Scalar, mean absolute difference.
    """
    objects = (logits.argmax(-1) != logits.shape[-1] - 1).sum(1)
    truth = torch.tensor(counts, dtype=torch.float32, device=logits.device)
    return (objects - truth).abs().mean()


def _check(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    targets: BoxTargets,
    queries: torch.Tensor | None,
    tokens: torch.Tensor | None,
) -> None:
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(
            f"expected logits [B, Q, K] and boxes [B, Q, 4]; got {list(logits.shape)} and "
            f"{list(boxes.shape)}"
        )
    if len(targets.counts) != len(logits):
        raise ValueError(
            f"targets hold {len(targets.counts)} images, the predictions {len(logits)}"
        )
    if (queries is None) != (tokens is None):
        raise ValueError("the alignment loss needs both queries and tokens, or neither")
    if queries is None or tokens is None:
        return
    if queries.ndim != 3 or queries.shape[:2] != logits.shape[:2]:
        raise ValueError(
            f"expected queries {[*logits.shape[:2], 'P']}, one per logit row; got "
            f"{list(queries.shape)}"
        )
    expected = (len(queries), targets.tokens.shape[1], queries.shape[-1])
    if tokens.shape != expected:
        raise ValueError(
            f"expected tokens {list(expected)}, for the images, the targets' token map and the "
            f"queries' width; got {list(tokens.shape)}"
        )
