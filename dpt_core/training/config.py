"""Optimisation settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass


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
        betas, epsilon, weight_decay: of AdamW.
        max_norm: gradients are clipped to this norm.
        precision: "no", "fp16" or "bf16".
        ema: decay of an exponential moving average of the weights, or None.
        seed: of everything random.
        save_every: steps between checkpoints.
        workers: data loader processes.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: str = "constant_with_warmup"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    max_norm: float = 1.0
    precision: str = "no"
    ema: float | None = None
    seed: int = 1337
    save_every: int = 500
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
