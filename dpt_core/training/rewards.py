"""What score-weighted tuning learns from: prompts, pictures drawn for them, and their scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..adapter import DiscriminativeAdapter
from ..reading import latent_errors, latent_scores
from .data.examples import DataError
from .data.lines import location, read_lines, shorten, text_field

LEVELS = (350, 350, 550)
"""Noise levels at which a picture is scored, each with its own noise; the mean is its reward."""

ERROR_LEVELS, ERROR_DRAWS = (500, 700), 2
"""Noise levels at which the model's own denoising error of a picture is read, and draws of each."""

CLIP = 1.5
"""Standard deviations at which an advantage is cut off."""


@dataclass(frozen=True)
class RewardPrompt:
    """What is drawn.

    Attributes:
        text: the prompt.
        negatives: texts that a good picture does not show, each about as likely as the prompt.
    """

    text: str
    negatives: tuple[str, ...] = ()


def read_prompts(path: str | Path) -> list[RewardPrompt]:
    """Read a file of prompts.

    Args:
        path: UTF-8; `.jsonl` with `prompt` and, if you like, `negatives` (a list of texts) in each
            line, or any other file with a prompt in each line. Empty lines are left out.

    Raises:
        DataError: no file, no prompt, or a line that is none.
    """
    path, prompts = Path(path), []
    for line in read_lines(path):
        if not (text := line.text.strip()):
            continue
        if path.suffix == ".jsonl":
            prompts.append(_parse(text, location(path, line.number)))
        else:
            prompts.append(RewardPrompt(text))
    if not prompts:
        raise DataError(f"{path}: expected a prompt in each line; got none. Add some")
    return prompts


def _parse(text: str, where: str) -> RewardPrompt:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: expected a JSON object; got {shorten(text)}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object; got {shorten(text)}")
    negatives = record.get("negatives", [])
    if not isinstance(negatives, list) or not all(
        isinstance(each, str) and each.strip() for each in negatives
    ):
        raise DataError(
            f"{where}: negatives must list texts that are not empty; got {shorten(negatives)}"
        )
    return RewardPrompt(text_field(record, "prompt", where).strip(), tuple(negatives))


class Reading(NamedTuple):
    """How good pictures are for their prompts, each `[N]` or `[P, K]` float32.

    Attributes:
        scores: by the adapter: the score, less the mean score of the prompt's negatives.
        errors: by the model itself: its denoising error. It knows malformed things, which the
            adapter was never shown.
    """

    scores: torch.Tensor
    errors: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, errors: Callable[[], torch.Tensor], weight: float) -> Reading:
        """Scores, and errors where they weigh anything: they cost more to read than the scores."""
        return cls(scores, errors() if weight else torch.zeros_like(scores))

    def joined(self, errors: float) -> torch.Tensor:
        """Of `[P, K]` pictures, what tuning learns from.

        Args:
            errors: how much they weigh against the scores, both in deviations; ≥ 0.
        """
        return standard(self.scores) - errors * standard(self.errors)


def reward_scores(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    latents: torch.Tensor,
    prompts: Sequence[RewardPrompt],
    levels: Sequence[int],
    seed: int,
) -> torch.Tensor:
    """The scores of finished pictures, less the mean scores of their negatives.

    Args:
        pipeline: the untuned model, which the adapter was trained on.
        adapter: the adapter.
        latents: `[N, C, h, w]` scaled latents of finished pictures.
        prompts: one per picture.
        levels: timesteps to read at, each with its own noise; the mean is taken.
        seed: of the noise, which all pictures share.

    Returns:
        `[N]` float32 on the CPU.
    """

    def mean_score(latents: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        each = [
            latent_scores(pipeline, adapter, latents, texts, level, draws=1, seed=seed + draw)
            for draw, level in enumerate(levels)
        ]
        return torch.stack(each).mean(0)

    found = mean_score(latents, [prompt.text for prompt in prompts])
    pairs = [(row, text) for row, prompt in enumerate(prompts) for text in prompt.negatives]
    if pairs:
        rows = torch.tensor([row for row, _ in pairs])
        wrong = mean_score(latents[rows], [text for _, text in pairs])
        total = torch.zeros(len(prompts)).index_add(0, rows, wrong)
        found = found - total / torch.bincount(rows, minlength=len(prompts)).clamp(min=1)
    return found


def reward_errors(
    pipeline: Any, latents: torch.Tensor, prompts: Sequence[RewardPrompt], seed: int
) -> torch.Tensor:
    """The untuned model's denoising errors of finished pictures, `[N]` as :func:`reward_scores`."""
    texts = [prompt.text for prompt in prompts]
    return latent_errors(pipeline, latents, texts, ERROR_LEVELS, ERROR_DRAWS, seed).mean(0)


def standard(values: torch.Tensor) -> torch.Tensor:
    """How much more than the others of their prompt, in deviations.

    The unit is the deviation over all prompts, not that of each: where all candidates are good, or
    all bad, there is little to learn, and what there is is mostly noise.

    Args:
        values: `[P, K]` of `K` pictures of each of `P` prompts.

    Returns:
        `[P, K]`, the mean over each prompt 0.
    """
    better = values - values.mean(dim=1, keepdim=True)
    return better / better.square().mean().sqrt().clamp(min=torch.finfo(better.dtype).tiny)


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """How much better pictures are than the others of their prompt.

    Args:
        rewards: `[P, K]` of `K` pictures of each of `P` prompts.

    Returns:
        `[P, K]` in [-1, 1], the mean over each prompt near 0.
    """
    return standard(rewards).clamp(-CLIP, CLIP) / CLIP
