"""Everything the adapter is trained on, in one call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import normalize

from ..adapter import AdapterOutput, DiscriminativeAdapter
from ..boxes import BoxTargets
from .contrastive import MatchingPairs, calibration_loss, contrastive_loss, recognition_loss
from .grounding import DEFAULT_WEIGHTS, grounding_losses
from .weights import LossWeights, weighted_total


class Phrases(NamedTuple):
    """The referring expressions of `B` images, from RoBERTa or any other text encoder.

    Attributes:
        hidden: `[B, L, phrase_width]` hidden states of the tokens, of a frozen encoder.
        mask: `[B, L]` bool, True where a token is no padding; None counts padding, as published.
    """

    hidden: torch.Tensor
    mask: torch.Tensor | None = None


def probing_losses(
    adapter: DiscriminativeAdapter,
    grounding: AdapterOutput | None,
    targets: BoxTargets | None,
    pairs: MatchingPairs,
    phrases: Phrases | None = None,
    denoising: torch.Tensor | None = None,
    weights: LossWeights = DEFAULT_WEIGHTS,
    others: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The objective of probing and, with the denoising loss, of tuning.

    `i2t + t2i + ce + 5·bbox + 2·giou + contrastive_align (+ mse)` with the published coefficients,
    and `recognition` and `calibration`, which are ours, where their coefficients are not 0.

    Call it inside the module that a distributed wrapper wraps: `logit_scale` and the projection of
    tokens are used here and nowhere else.

    Args:
        adapter: for its `logit_scale` and its projection of tokens.
        grounding: the adapter's answer where each image's referring expression was the context;
            None, with `targets`, leaves the losses of grounding out.
        targets: true boxes; their token map has the `L` of `phrases`.
        pairs: matching queries of the five other passes.
        phrases: hidden states of the referring expressions; None leaves alignment out.
        denoising: the denoising loss of tuning, a scalar.
        weights: coefficients.
        others: `[M, D]` further texts, which recognition must tell from the true ones.

    Returns:
        Scalars by name: every loss before its coefficient, `cardinality`, and the weighted `total`
        to differentiate.

    Raises:
        ValueError: shapes disagree, or a prediction is not finite.
    """
    queries = tokens = mask = None
    if grounding is not None and phrases is not None:
        tokens = normalize(_project(adapter, phrases.hidden).float(), dim=-1)
        queries, mask = normalize(grounding.projections.float(), dim=-1), phrases.mask
    losses: dict[str, torch.Tensor] = {}
    if grounding is not None:
        losses |= grounding_losses(
            grounding.logits, grounding.boxes, targets, queries, tokens, mask, weights
        )
    scale = adapter.logit_scale.float().exp()
    i2t, t2i = contrastive_loss(pairs, scale)
    losses |= {"contrastive_i2t": i2t, "contrastive_t2i": t2i}
    if weights.recognition:
        losses["recognition"] = recognition_loss(pairs, scale, others)
    if weights.calibration:
        losses["calibration"] = calibration_loss(pairs, scale)
    if denoising is not None:
        losses["mse"] = denoising
    return losses | {"total": weighted_total(losses, weights)}


def _project(adapter: DiscriminativeAdapter, hidden: torch.Tensor) -> torch.Tensor:
    if hidden.shape[-1] != adapter.config.phrase_width:
        raise ValueError(
            f"adapter expects hidden states of width {adapter.config.phrase_width}, got "
            f"{hidden.shape[-1]}: set phrase_width to the phrase encoder's"
        )
    project = adapter.contrastive_align_projection_text
    return project(hidden.to(project.weight.dtype))
