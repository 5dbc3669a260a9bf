"""Which tap tells right from wrong: a short trial before an adapter is trained.

At each tap a linear map reads the text vector of what a picture shows off the mean, the largest and
the least of every channel, whatever text the picture is seen with: the recognition loss, solved in
closed form. The score of a
pair is the cosine of that reading with the pair's text. A tap is as good as these scores part right
pairs from wrong ones, on examples that the map was not made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cosine_similarity

from .features import IMAGES, TEXTS, Example, FeatureSource, read_batch, read_texts

LEVEL = 700
"""Noise level of the trial: scores at this noise decide what a correction can do."""

DEPTHS = (0.2, 1 / 3, 0.5, 2 / 3)
"""Which parts of a transformer's blocks are tried."""

UNET = ("mid", "up0", "up1", "up2")
"""Which taps of a UNet are tried."""

RIDGE = 0.1
"""Share of the mean energy added to every direction."""

CLOSE = 0.01
"""A tap that is worse by less is taken if it comes earlier: it costs less."""

AT_ONCE = 16
"""Examples that are read together."""


def tried_taps(taps: Mapping[str, int]) -> list[str]:
    """The taps of a model that a trial compares, in order of computation."""
    if named := [tap for tap in taps if tap in UNET]:
        return named
    names = list(taps)
    places = {max(0, math.ceil(depth * len(names)) - 1) for depth in DEPTHS}
    return [names[place] for place in sorted(places)]


def compare_taps(
    source: FeatureSource, taps: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    """How well each tap parts right pairs from hard and random wrong ones, in [0, 1].

    Args:
        source: the model.
        taps: of it, in order of computation.
        examples: at one noise level; the first half makes the maps, the second half tells.
    """
    pooled: dict[str, list[torch.Tensor]] = {tap: [] for tap in taps}
    texts = []
    for first in range(0, len(examples), AT_ONCE):
        some = [
            each._replace(grounding=None, others=()) for each in examples[first : first + AT_ONCE]
        ]
        for tap, features in read_batch(source, taps, some).items():
            pooled[tap].append(_pooled(features.float()).cpu())
        texts.append(read_texts(source, some).cpu())
    y = torch.cat(texts)  # [N, 3, D]
    y = (y - y.flatten(0, 1).mean(0)) / y.flatten(0, 1).std(0).clamp(min=1e-6)
    return {tap: _parted(torch.cat(each, dim=1), y) for tap, each in pooled.items()}


def choose_tap(figures: Mapping[str, float]) -> str:
    """The earliest tap that is about as good as the best."""
    best = max(figures.values())
    return next(tap for tap, figure in figures.items() if figure > best - CLOSE)


def _pooled(features: torch.Tensor) -> torch.Tensor:
    """Of features `[P, B, C, h, w]` `[P, B, 3 C]`: small things show in the extremes."""
    over = (-2, -1)
    parts = features.mean(over), features.amax(over), features.amin(over)
    return torch.cat(parts, dim=-1)


def _parted(x: torch.Tensor, y: torch.Tensor) -> float:
    """Of pooled features `[5, N, F]` and texts `[N, 3, D]`."""
    half = x.shape[1] // 2
    mean, scale = x[:, :half].mean((0, 1)), x[:, :half].std((0, 1)).clamp(min=1e-6)
    x = (x - mean) / scale
    shown = y[:, list(IMAGES)].movedim(1, 0)  # [5, N, D]: the texts of what is seen
    told = y[:, list(TEXTS)].movedim(1, 0)  # what it is seen with
    made, rest = (part.flatten(0, 1) for part in (x[:, :half], x[:, half:]))
    gram = made @ made.T
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weights = torch.linalg.solve(gram + ridge, shown[:, :half].flatten(0, 1))
    read = (rest @ made.T @ weights).unflatten(0, (5, -1))
    scores = cosine_similarity(read, told[:, half:], dim=-1)
    return parted(scores[0], scores[1:].flatten())


def parted(right: torch.Tensor, wrong: torch.Tensor) -> float:
    """The chance that a right pair scores above a wrong one (AUC); a tie counts half."""
    above = (right[:, None] > wrong).double() + 0.5 * (right[:, None] == wrong).double()
    return float(above.mean())
