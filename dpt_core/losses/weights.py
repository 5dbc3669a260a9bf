"""Coefficients of the training losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

COEFFICIENTS = (
    "ce",
    "bbox",
    "giou",
    "contrastive_align",
    "contrastive_i2t",
    "contrastive_t2i",
    "recognition",
    "calibration",
    "mse",
)
"""Losses that enter the total, under the published names where the paper has them."""


@dataclass(frozen=True)
class LossWeights:
    """How the losses add up; every default is the published value.

    Attributes:
        ce: class loss of the grounding queries.
        bbox: L1 box loss.
        giou: generalised IoU box loss.
        contrastive_align: alignment of grounding queries with the phrase's tokens.
        contrastive_i2t: own image against three texts.
        contrastive_t2i: own text against three images.
        recognition: images against all texts of the batch; not in the paper, 0 leaves it out.
        calibration: right pairs against wrong ones by one threshold; the same.
        mse: denoising loss, in tuning only.
        eos_coef: weight of a query that should say "no object" in the class loss.
        temperature: temperature of the contrastive alignment loss, above 0.
        cost_class, cost_bbox, cost_giou: coefficients of the bipartite matching.

    Raises:
        ValueError: a coefficient is negative or not finite, or the temperature is not above 0.
    """

    ce: float = 1.0
    bbox: float = 5.0
    giou: float = 2.0
    contrastive_align: float = 1.0
    contrastive_i2t: float = 1.0
    contrastive_t2i: float = 1.0
    recognition: float = 0.0
    calibration: float = 0.0
    mse: float = 1.0
    eos_coef: float = 0.1
    temperature: float = 0.07
    cost_class: float = 1.0
    cost_bbox: float = 5.0
    cost_giou: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:  # NaN is not, either
                raise ValueError(f"{field.name} must be a finite number, at least 0; got {value}")
        if self.temperature == 0:
            raise ValueError("temperature must be above 0; the published value is 0.07")


def weighted_total(losses: Mapping[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """`Σ coefficient·loss` over the losses that are there.

    Args:
        losses: scalars by name; names outside :data:`COEFFICIENTS` (figures for the log) are left
            out.
        weights: coefficients.

    Raises:
        ValueError: no loss is among them.
    """
    parts = [getattr(weights, name) * losses[name] for name in COEFFICIENTS if name in losses]
    if not parts:
        raise ValueError(f"expected at least one of {COEFFICIENTS}; got {sorted(losses)}")
    return torch.stack(parts).sum()
