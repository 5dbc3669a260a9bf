"""Settings of score-weighted tuning that commands and nodes share; light, for the host reads them
when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import check_number, check_settings, setting
from .config import MOST, LoopConfig

STRENGTHS = (1.0, 2.0, 3.0, 4.0)
"""Of a LoRA, that are tried: what is learned points the right way, but stops short of what pays."""

ERRORS = 0.5
"""How much a model's own denoising error weighs against the score. On the demo's two models this
tells right from wrong pictures of a prompt better than the score alone, and better than 0.25 or 1
on both together."""

MOST_ERRORS = 1000.0
"""From far below that on the score no longer counts."""


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a run.

    Attributes:
        candidates: pictures of each prompt, at least 2; none is corrected, for correction raises
            the score of wrong pictures too.
        steps, batch_size, learning_rate: of the optimiser.
        rank: of the LoRA.
        seed: of everything random.
        earliest: least noise level that is trained; layouts form above.
        anchored: share of a batch without prompt, held to the untuned prediction.
        strengths: of the LoRA, of which the best is kept.
        errors: how much the model's own denoising error weighs against the score.

    Raises:
        ValueError: a setting is out of range.
    """

    candidates: int = setting(8, "Pictures of each prompt.", minimum=2, maximum=64)
    steps: int = setting(300, "Steps of training the LoRA.", minimum=1, maximum=1_000_000)
    batch_size: int = setting(8, "Pictures in a step.", minimum=1, maximum=1024)
    learning_rate: float = setting(
        5e-4,
        "How fast it learns. Lower it for large models.",
        minimum=0.000001, maximum=0.1, step=0.000001,
    )  # fmt: skip
    rank: int = setting(16, "Of the LoRA.", minimum=1, maximum=256)
    seed: int = setting(0, "Of everything random.", minimum=0, maximum=MOST - 1)
    earliest: int = 500
    anchored: float = 1 / 8
    strengths: tuple[float, ...] = STRENGTHS
    errors: float = ERRORS

    def __post_init__(self) -> None:
        check_settings(self)
        check_number("errors", self.errors, 0.0, MOST_ERRORS)
        self.loop()

    def loop(self) -> LoopConfig:
        """Settings of the training loop."""
        return LoopConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup=min(10, self.steps // 10),
            betas=(0.9, 0.99),
            weight_decay=0.0,
            seed=self.seed,
            save_every=max(1, self.steps // 8),
        )
