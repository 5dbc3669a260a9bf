"""What a round of score-weighted tuning trains: a LoRA, on scored pictures of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from ..generation import Sampling
from ..losses import denoising_loss, score_weighted_loss
from ..settings import check_number
from .backbone import LEVELS, Backbone
from .config import LoopConfig
from .lora import ATTENTION, FEED_FORWARD
from .rewards import LEVELS as REWARD_LEVELS
from .rewards import RewardPrompt, advantages
from .tuning_settings import ERRORS, MOST_ERRORS, STRENGTHS

METHOD = 2
"""Of what a run is made; 2: the model's own error counts beside the score. Runs of another are
refused."""


@dataclass(frozen=True)
class RewardConfig:
    """Settings of score-weighted tuning.

    Attributes:
        loop: optimisation in each round.
        rounds: of draw, score, tune; the best by the development figure is kept.
        sampling: how candidates are drawn; without correction.
        candidates: per prompt and round.
        levels: timesteps at which a picture is scored, the mean of which is its score.
        errors: how much the model's own denoising error weighs against the score.
        earliest: least timestep that is trained; layouts form above.
        anchored: share of a batch without caption, held to the untuned prediction: guidance
            multiplies only what the caption changes.
        rank, layers: of the LoRA, see :func:`~dpt_core.training.lora.add_lora`.
        prompts_at_once: whose candidates are drawn together and kept in one file.
        strengths: of the first round's LoRA, of which the best by the development figure is kept.
        control: learn all pictures alike, with the denoising loss only: what tuning on one's own
            pictures does without scores.
    """

    loop: LoopConfig = LoopConfig(
        steps=320, batch_size=48, learning_rate=2e-3, schedule="cosine", warmup=10,
        betas=(0.9, 0.99), weight_decay=0.0, ema=0.97, save_every=40,
    )  # fmt: skip
    rounds: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    candidates: int = 8
    levels: tuple[int, ...] = REWARD_LEVELS
    errors: float = ERRORS
    earliest: int = 500
    anchored: float = 1 / 8
    rank: int = 16
    layers: tuple[str, ...] = ATTENTION + FEED_FORWARD
    prompts_at_once: int = 4
    strengths: tuple[float, ...] = STRENGTHS
    control: bool = False

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("candidates", 2), ("prompts_at_once", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        check_number("errors", self.errors, 0.0, MOST_ERRORS)
        if self.sampling.corrects:
            raise ValueError("candidates are drawn without correction: it misleads the score")


class ScoredPicture(NamedTuple):
    """What is learned from.

    Attributes:
        latent: `[C, h, w]`, scaled.
        prompt: what it was drawn for.
        advantage: in [-1, 1].
    """

    latent: torch.Tensor
    prompt: str
    advantage: float


class ScoredPictures(Dataset[ScoredPicture]):
    """Everything drawn in a round.

    Args:
        latents: `[P, K, C, h, w]`.
        rewards: `[P, K]`.
        prompts: `P` prompts.
    """

    def __init__(
        self, latents: torch.Tensor, rewards: torch.Tensor, prompts: Sequence[RewardPrompt]
    ) -> None:
        self._latents, self._prompts = latents, prompts
        self._advantages = advantages(rewards)

    def __len__(self) -> int:
        return self._advantages.numel()

    def __getitem__(self, index: int) -> ScoredPicture:
        row, place = divmod(index, self._latents.shape[1])
        advantage = float(self._advantages[row, place])
        return ScoredPicture(self._latents[row, place].float(), self._prompts[row].text, advantage)


class ScoreWeightedTask(nn.Module):
    """The loss of a round.

    Args:
        backbone: the model, with a LoRA on its network that is trained.
        untuned: its network before the round, frozen.
        config: settings.
    """

    def __init__(self, backbone: Backbone, untuned: nn.Module, config: RewardConfig) -> None:
        super().__init__()
        self.network, self._backbone, self._config = backbone.network, backbone, config
        self._untuned = [untuned]  # in a list: no part of the checkpoint

    def train(self, mode: bool = True) -> ScoreWeightedTask:
        """The network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, batch: list[ScoredPicture]) -> dict[str, torch.Tensor]:
        model, device = self._backbone.model, self.network.device
        latents = torch.stack([each.latent for each in batch]).to(device)
        advantage = torch.tensor([each.advantage for each in batch], device=device)
        anchored = torch.arange(len(batch)) < round(self._config.anchored * len(batch))
        captions = [
            "" if alone else each.prompt for alone, each in zip(anchored, batch, strict=True)
        ]
        advantage = advantage.masked_fill(anchored.to(device), 0.0)
        noise = torch.randn_like(latents)
        levels = torch.randint(self._config.earliest, LEVELS, (len(batch),), device=device)
        with torch.no_grad():
            inputs = model.conditioning(captions, latents.shape[-2:])
        call = self._backbone.noised(latents, noise, levels, inputs)
        target = self._backbone.target(latents, noise, call)
        prediction = model.run(self.network, call)
        if self._config.control:
            return {"denoising": denoising_loss(prediction, target)}
        (untuned,) = self._untuned
        with torch.no_grad():
            before = model.run(untuned, call)
        return {"score weighted": score_weighted_loss(prediction, before, target, advantage)}
