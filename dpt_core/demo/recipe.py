"""Settings of every stage that makes the demo model; :mod:`dpt_core.demo.kitchen` runs them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..training.config import LoopConfig


@dataclass(frozen=True)
class Recipe:
    """Settings of every stage.

    Attributes:
        pairs: scene pairs that the denoiser and the adapter see.
        sample: scene pairs whose latents are given unit variance, and examples by whose features
            the adapter's input is whitened.
        previews: pictures drawn and judged at each checkpoint of the denoiser.
        wrong: share of captions in the denoiser's training that are hard negatives.
        lean: its timesteps lean towards high noise by that much.
        seen: examples whose features the adapter sees in probing; pairs come again with new noise.
        recognition, verdict: coefficients of losses that the paper does not have.
        text, crops, whole, denoiser, refined, probing, tuning: settings of the stages.
    """

    pairs: int = 20480
    sample: int = 256
    previews: int = 24
    wrong: float = 0.05
    lean: float = 1.6
    seen: int = 40960
    recognition: float = 4.0
    verdict: float = 2.0
    text: LoopConfig = LoopConfig(
        steps=1200, batch_size=128, learning_rate=1e-3, schedule="cosine", warmup=50
    )
    crops: LoopConfig = LoopConfig(
        steps=1200, batch_size=16, learning_rate=2e-3, schedule="cosine", warmup=50,
        weight_decay=0.0, precision="bf16", ema=0.995,
    )  # fmt: skip
    whole: LoopConfig = LoopConfig(
        steps=1000, batch_size=8, learning_rate=1e-3, schedule="cosine", warmup=20,
        weight_decay=0.0, precision="bf16", ema=0.99,
    )  # fmt: skip
    denoiser: LoopConfig = LoopConfig(
        steps=4000, batch_size=16, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", ema=0.998, save_every=500,
    )  # fmt: skip
    refined: LoopConfig = LoopConfig(
        steps=2800, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", ema=0.998, seed=1338, save_every=1000,
    )  # fmt: skip
    probing: LoopConfig = LoopConfig(
        steps=10_000, batch_size=16, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", save_every=1000,
    )  # fmt: skip
    tuning: LoopConfig = LoopConfig(
        steps=450, batch_size=8, learning_rate=5e-4, schedule="cosine", precision="bf16",
        save_every=150,
    )  # fmt: skip
    stages: tuple[str, ...] = field(
        default=(
            "text", "crops", "whole", "latents", "denoiser", "refined", "features", "probing",
            "tuning", "files",
        ),
        init=False,
    )  # fmt: skip
