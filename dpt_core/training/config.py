"""Optimisation settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = ("adamw", "muon")

MOST = 2**31
"""Whole numbers are below it: the seed of a step is made of the run's seed and the step."""


@dataclass(frozen=True)
class LoopConfig:
    """Optimisation settings; the defaults are the published ones (AdamW, constant rate).

    Attributes:
        steps: optimiser steps.
        batch_size: examples per process and micro-step.
        accumulate: micro-steps per optimiser step.
        learning_rate: after warm-up.
        schedule: a schedule of `transformers.get_scheduler` ("constant_with_warmup", "cosine", …).
        warmup: steps of linear warm-up.
        cosine_part: share of the schedule "cosine" that is gone through; with 0.5 the rate ends at
            half of its height.
        betas, epsilon, weight_decay: of AdamW.
        max_norm: gradients are clipped to this norm.
        precision: "no", "fp16" or "bf16".
        ema: decay of an exponential moving average of the weights, or None.
        seed: of everything random.
        save_every: steps between checkpoints.
        workers: data loader processes.
        optimizer: "adamw", or "muon" for matrices in blocks and AdamW for the rest.

    Raises:
        ValueError: a setting is out of range, or not finite.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: str = "constant_with_warmup"
    warmup: int = 0
    cosine_part: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    max_norm: float = 1.0
    precision: str = "no"
    ema: float | None = None
    seed: int = 1337
    save_every: int = 500
    workers: int = 0
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "batch_size", "accumulate", "save_every"), 1)
        for name, low in (least | dict.fromkeys(("warmup", "workers", "seed"), 0)).items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value < MOST:
                raise ValueError(
                    f"{name} must be at least {low} and below {MOST}, a whole number; got {value!r}"
                )
        for name in ("learning_rate", "epsilon", "max_norm"):
            if not 0 < getattr(self, name) < math.inf:  # NaN is not, either
                raise ValueError(f"{name} must be finite and above 0; got {getattr(self, name)}")
        if not 0 < self.cosine_part <= 1:
            raise ValueError(f"cosine_part must be in (0, 1]; got {self.cosine_part}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite, at least 0; got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1); got {self.betas}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be in (0, 1), or None for no average; got {self.ema}")
        for name, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
