"""Settings of every stage that makes the demo model; :mod:`dpt_core.demo.making` runs them."""

from __future__ import annotations

from dataclasses import dataclass

from ..generation import Sampling
from ..shapes.pairs import TRAINING_PAIRS
from ..training.config import LoopConfig
from ..training.reward_task import RewardConfig


@dataclass(frozen=True)
class Recipe:
    """Settings of every stage.

    Attributes:
        pairs: scene pairs that the denoiser and the adapter are trained on.
        sample: scene pairs whose latents are given unit variance, and examples by whose features
            the adapter's input is whitened.
        previews: pictures drawn and judged at each checkpoint of the denoiser.
        wrong: share of captions in the denoiser's training that are hard negatives.
        timestep_skew: how much the UNet's timesteps lean towards high noise; 1 is uniform.
        level_mean, level_deviation: of the logits of the transformer's noise levels.
        cached_examples: examples whose features are kept for probing; pairs come again with new
            noise.
        tuning_prompts: that the transformer's LoRA is tuned by.
        strength_every: one in so many of them tells how strong it should be.
        score_tuning: how it is tuned.
        recognition, calibration: coefficients of losses that the paper does not have.
        text_encoder, autoencoder_pretraining, autoencoder_finetuning, denoiser_pretraining,
            denoiser_finetuning, transformer, probing, probing_again, tuning: optimisation of the
            stages.
    """

    pairs: int = TRAINING_PAIRS
    sample: int = 256
    previews: int = 24
    wrong: float = 0.05
    timestep_skew: float = 1.6
    level_mean: float = 0.4
    level_deviation: float = 1.1
    cached_examples: int = 34816
    tuning_prompts: int = 1868
    strength_every: int = 20
    score_tuning: RewardConfig = RewardConfig(
        loop=LoopConfig(
            steps=800, batch_size=64, learning_rate=2e-3, schedule="cosine", warmup=10,
            betas=(0.9, 0.99), weight_decay=0.0, ema=0.98, precision="bf16", save_every=100,
        ),
        sampling=Sampling(8, 2.5), earliest=300, errors=1.0,
    )  # fmt: skip
    recognition: float = 4.0
    calibration: float = 2.0
    text_encoder: LoopConfig = LoopConfig(
        steps=1200, batch_size=128, learning_rate=1e-3, schedule="cosine", warmup=50
    )
    autoencoder_pretraining: LoopConfig = LoopConfig(
        steps=1200, batch_size=16, learning_rate=2e-3, schedule="cosine", warmup=50,
        weight_decay=0.0, precision="bf16", ema=0.995,
    )  # fmt: skip
    autoencoder_finetuning: LoopConfig = LoopConfig(
        steps=1000, batch_size=8, learning_rate=1e-3, schedule="cosine", warmup=20,
        weight_decay=0.0, precision="bf16", ema=0.99,
    )  # fmt: skip
    denoiser_pretraining: LoopConfig = LoopConfig(
        steps=4000, batch_size=16, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", ema=0.998, save_every=500,
    )  # fmt: skip
    denoiser_finetuning: LoopConfig = LoopConfig(
        steps=2800, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", ema=0.998, seed=1338, save_every=1000,
    )  # fmt: skip
    transformer: LoopConfig = LoopConfig(
        steps=4600, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup=200,
        cosine_part=0.5,  # trained to the end it draws nearly everything right: nothing to correct
        betas=(0.9, 0.99), precision="bf16", ema=0.999, save_every=1000, optimizer="muon",
    )  # fmt: skip
    probing: LoopConfig = LoopConfig(
        steps=10_000, batch_size=16, learning_rate=1e-3, schedule="cosine", warmup=100,
        precision="bf16", save_every=1000,
    )  # fmt: skip
    probing_again: LoopConfig = LoopConfig(
        steps=4000, batch_size=16, learning_rate=5e-4, schedule="cosine", warmup=100,
        precision="bf16", save_every=500,
    )  # fmt: skip
    tuning: LoopConfig = LoopConfig(
        steps=450, batch_size=8, learning_rate=5e-4, schedule="cosine", precision="bf16",
        save_every=150,
    )  # fmt: skip
