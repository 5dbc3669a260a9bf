"""What the adapter itself can do, on held-out scenes: matching and grounding."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..adapter import DiscriminativeAdapter
from ..boxes import grounding_hits
from ..reading import TIMESTEP, encode_pictures, matching_scores, noise_of, read_boxes
from ..shapes.caption import phrase
from ..shapes.pairs import ScenePair, scene_pair
from ..shapes.scene import render
from . import defaults
from .statistics import share

WORLD = 1000
"""Seed of the held-out scenes; training uses those below 8."""


@dataclass(frozen=True)
class Probe:
    """What is asked of the adapter.

    Attributes:
        scenes: pairs of a scene and its hard negative, ≥ 1.
        timestep: noise level, in [0, 999], of the single figures.
        timesteps: noise levels of the averaged ones.
        batch_size: pairs at a time.
        seed: of the noise.
    """

    scenes: int = defaults.PROMPTS
    timestep: int = TIMESTEP
    timesteps: tuple[int, ...] = defaults.METRIC_TIMESTEPS
    batch_size: int = defaults.BATCH_SIZE
    seed: int = 0


@dataclass(frozen=True)
class Phrase:
    """A referring expression: a phrase that names exactly one thing.

    Attributes:
        text: the phrase.
        box: `[4]` normalised (cx, cy, w, h) of the thing.
    """

    text: str
    box: tuple[float, float, float, float]


def adapter_metrics(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    probe: Probe | None = None,
    progress: Callable[[int], None] = lambda scenes: None,
) -> dict[str, Any]:
    """Accuracy of matching and grounding.

    Args:
        pipeline: the model that the adapter reads, with or without its LoRA.
        adapter: the adapter, on the pipeline's device.
        probe: what is asked; by default the standard figures.
        progress: called with the number of scenes that were read.

    Returns:
        JSON values. `text`: own image, its own text above the hard negative's; `image`: own text,
        its own image above the hard negative's; `phrases` and `phrases_generalised`: the surest
        box overlaps the thing by an IoU, or generalised IoU, of at least 0.5. For each, `at` the
        single timestep, `each` timestep, and `mean`: of the scores over the timesteps for
        matching, of the accuracy for grounding.
    """
    probe = probe or Probe()
    levels = sorted({probe.timestep, *probe.timesteps})
    scores, hits = [], []
    for start in range(0, probe.scenes, probe.batch_size):
        indices = range(start, min(start + probe.batch_size, probe.scenes))
        pairs = [scene_pair(WORLD, index) for index in indices]
        clean = encode_pictures(pipeline, np.stack([render(pair.scene) for pair in pairs]))
        hard = encode_pictures(pipeline, np.stack([render(pair.wrong_scene) for pair in pairs]))
        noise = noise_of(clean, len(levels), [probe.seed + index for index in indices])
        scores.append(_matching(pipeline, adapter, pairs, (clean, hard), levels, noise))
        hits.append(_grounding(pipeline, adapter, pairs, clean, levels, noise))
        progress(len(pairs))
    # scores [T, 3, N]: own pair, own image with hard text, hard image with own text
    return _figures(probe, levels, torch.cat(scores, dim=-1), torch.cat(hits, dim=-1))


def unique_phrase(pair: ScenePair) -> Phrase | None:
    """A phrase of a scene's caption that names one thing, or None where all name several."""
    rng = random.Random(f"expression-{pair.text}")
    mentions = [mention for mention in pair.caption.mentions if mention.count == 1]
    if not mentions:
        return None
    mention = rng.choice(mentions)
    (box,) = (
        thing.box
        for thing in pair.scene
        if (thing.colour, thing.shape) == (mention.colour, mention.shape)
    )
    return Phrase(phrase(mention), box)


def _matching(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    pairs: Sequence[ScenePair],
    latents: tuple[torch.Tensor, torch.Tensor],
    levels: Sequence[int],
    noise: torch.Tensor,
) -> torch.Tensor:
    """Scores `[T, 3, B]`: own pair, own image with hard text, hard image with own text."""
    own, wrong = [pair.text for pair in pairs], [pair.wrong_text for pair in pairs]
    clean, hard = latents
    together = torch.stack((clean, clean, hard))
    return matching_scores(pipeline, adapter, together, (own, wrong, own), levels, noise)


def _grounding(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    pairs: Sequence[ScenePair],
    latents: torch.Tensor,
    levels: Sequence[int],
    noise: torch.Tensor,
) -> torch.Tensor:
    """Hits `[T, 2, M]` of the M phrases that name one thing: by IoU and generalised IoU."""
    phrases = [unique_phrase(pair) for pair in pairs]
    rows = [row for row, each in enumerate(phrases) if each]
    if not rows:
        return torch.zeros(len(levels), 2, 0, dtype=torch.bool)
    truth = torch.tensor([phrases[row].box for row in rows])
    texts = [phrases[row].text for row in rows]
    found = read_boxes(pipeline, adapter, latents[rows], texts, levels, noise[:, rows])
    return torch.stack([
        torch.stack([
            grounding_hits(boxes, surest, truth, generalised=rule) for rule in (False, True)
        ])
        for boxes, surest in found
    ])  # fmt: skip


def _figures(
    probe: Probe, levels: list[int], scores: torch.Tensor, hits: torch.Tensor
) -> dict[str, Any]:
    averaged = [levels.index(level) for level in probe.timesteps]
    figures: dict[str, Any] = {"scenes": scores.shape[-1], "timestep": probe.timestep,
                               "timesteps": list(probe.timesteps)}  # fmt: skip
    for place, side in enumerate(("text", "image"), start=1):
        right = {
            level: share((scores[row, 0] > scores[row, place]).numpy())._asdict()
            for row, level in enumerate(levels)
        }
        means = scores[averaged].mean(0)
        figures[side] = {
            "at": right[probe.timestep],
            "mean": share((means[0] > means[place]).numpy())._asdict(),
            "each": right,
        }
    for place, rule in enumerate(("phrases", "phrases_generalised")):
        found = {
            level: share(hits[row, place].numpy())._asdict() for row, level in enumerate(levels)
        }
        mean = hits[averaged, place].float().mean().item()
        figures[rule] = {"at": found[probe.timestep], "mean": mean, "each": found}
    return figures
