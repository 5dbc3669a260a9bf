"""What an evaluation of generation found, as figures; none of them is a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from .. import METHOD_VERSION
from ..png import read_picture
from .arms import Arm
from .defaults import METRIC_TIMESTEPS
from .metrics.inception import frechet_distance, inception_score
from .passes import REFERENCE, Pass, column, features
from .prompts import Source
from .run import RunFolder
from .separation import READERS, ZERO_SHOT
from .statistics import average, paired_difference, proportion, separation, separation_estimate
from .tables import ALL, Column

FID, IS, FRECHET, DISTANCE = "fid", "inception_score", "frechet", "distance"
SETS = {FID: "FID ↓", IS: "IS ↑", FRECHET: "to rendered scenes ↓", DISTANCE: "between seeds"}
"""Metrics of sets of pictures."""

LAYOUT = 32
"""Side in pixels at which pictures of two seeds are compared: what is where, not its grain."""


@dataclass(frozen=True)
class Scored:
    """A metric and where its values are.

    Attributes:
        column: the metric.
        passes: arm's name → pass; empty where the arms' own rows have the values.
    """

    column: Column
    passes: Mapping[str, Pass] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """A finished evaluation.

    Attributes:
        folder: where it is.
        arms: the first is what the others are compared with.
        source: the prompts.
        costs: floating point operations per picture, by the arm's name.
        scored: metrics of single pictures, the headline first.
        inception: arm's name, and the reference where there is one → pass; empty without.
        latents: the same for the model's own autoencoder, with rendered scenes as the reference.
        reading: the first arm's pictures as adapter and model read them, or None.
        skipped: metrics that were left out, one line each.
    """

    folder: RunFolder
    arms: Sequence[Arm]
    source: Source
    costs: Mapping[str, int]
    scored: Sequence[Scored]
    inception: Mapping[str, Pass] = field(default_factory=dict)
    latents: Mapping[str, Pass] = field(default_factory=dict)
    reading: Pass | None = None
    skipped: Sequence[str] = ()

    @property
    def columns(self) -> list[Column]:
        """The metrics of single pictures."""
        return [each.column for each in self.scored]

    def rows(self, arm: Arm) -> Iterator[dict[str, Any]]:
        """An arm's rows with all metrics, one at a time."""
        passes = dict.fromkeys(each.passes[arm.name] for each in self.scored if each.passes)
        sources = [self.folder.rows(arm), *(self.folder.rows(each) for each in passes)]
        for parts in zip(*sources, strict=True):
            yield {key: value for part in parts for key, value in part.items()}


def summarise(found: Findings) -> dict[str, Any]:
    """The figures of an evaluation, as JSON values.

    Returns:
        `prompts`, `method`, `skipped`; `arms`: per arm its floating point operations per picture,
        `cost` relative to the first arm's, its `groups`, category or all → metric → mean and paired
        difference to the first arm, and its `sets`, metric of sets → value; `sets`: what the
        latter are called; `separation`: how the score tells the first arm's right pictures from
        wrong ones, None where all are alike; `readers`: the same by timestep, for the adapter and
        without one, with the adapter's gain.
    """
    folder, arms = found.folder, found.arms
    categories = column(folder, arms[0], "category")
    groups = {name: categories == name for name in dict.fromkeys(categories.tolist())}
    groups = (groups if len(groups) > 1 else {}) | {ALL: np.ones(len(categories), bool)}
    values = {
        (arm.name, each.column.name): column(
            folder, each.passes.get(arm.name, arm), each.column.name
        )
        for arm in arms
        for each in found.scored
    }
    sets = _sets(found)
    first = arms[0].name
    return {
        "prompts": found.source.about,
        "method": METHOD_VERSION,
        "skipped": list(found.skipped),
        "sets": {key: {"title": SETS[key]} for key in sets[first]},
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "operations": found.costs[arm.name],
                "cost": found.costs[arm.name] / found.costs[first],
                "groups": {
                    name: {
                        each.name: _figures(
                            each, values[arm.name, each.name][chosen],
                            values[first, each.name][chosen],
                        )
                        for each in found.columns
                    }
                    for name, chosen in groups.items()
                },
                "sets": sets[arm.name],
            }
            for arm in arms
        ],
    } | (_separation(found, values) if found.source.judged else {})  # fmt: skip


def _figures(metric: Column, values: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    mean = proportion(values) if metric.share else average(values)
    difference = paired_difference(values, base)
    return {"mean": mean._asdict(), "difference": difference._asdict()}


def _separation(found: Findings, values: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    """How scores tell the first arm's right pictures from wrong ones."""
    first = found.arms[0].name
    right, score = values[first, "holds"].astype(bool), values[first, "score"]
    auc = separation(score, right)
    if math.isnan(auc):
        return {"separation": None}
    known: dict[str, Any] = {"separation": auc}
    if found.reading is None:
        return known
    scores = {name: column(found.folder, found.reading, name) for name in READERS}  # [N, T] each
    known["readers"] = {
        name: {
            level: {
                "auc": separation_estimate(each[:, row], right)._asdict(),
                "gain": separation_estimate(
                    each[:, row], right, over=scores[ZERO_SHOT][:, row]
                )._asdict(),
            }
            for row, level in enumerate(METRIC_TIMESTEPS)
        }
        for name, each in scores.items()
    }
    return known


def _sets(found: Findings) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of every arm's pictures as a set."""
    sets: dict[str, dict[str, dict[str, float]]] = {arm.name: {} for arm in found.arms}
    for arm in found.arms:
        if found.source.about.get("seeds", 1) > 1:
            sets[arm.name][DISTANCE] = average(seed_distances(found, arm))._asdict()
        if found.inception:
            sets[arm.name] |= _inception_sets(found, arm)
        if found.latents:
            sets[arm.name][FRECHET] = {"value": _distance(found, found.latents, arm)}
    return sets


def _inception_sets(found: Findings, arm: Arm) -> dict[str, dict[str, float]]:
    folder, over, figures = found.folder, found.inception[arm.name], {}
    if REFERENCE in found.inception:
        figures[FID] = {"value": _distance(found, found.inception, arm)}
    score, deviation = inception_score(features(folder, over, "logits"))
    figures[IS] = {"value": score, "deviation": deviation}
    return figures


def _distance(found: Findings, passes: Mapping[str, Pass], arm: Arm) -> float:
    """Fréchet distance of an arm's pictures to the reference's."""
    real, drawn = (
        features(found.folder, passes[name], "features") for name in (REFERENCE, arm.name)
    )
    return frechet_distance(real, drawn)


def seed_distances(found: Findings, arm: Arm) -> np.ndarray:
    """How far an arm's pictures of one prompt are apart, `[P]`: the mean root mean square
    difference of two of them, at 32 pixels a side, in [0, 1]."""
    pictures: dict[str, list[np.ndarray]] = {}
    for prompt in found.source.prompts:
        image = Image.fromarray(read_picture(found.folder.picture(arm, prompt.index)))
        small = image.resize((LAYOUT, LAYOUT), Image.Resampling.BOX)
        pictures.setdefault(prompt.text, []).append(np.asarray(small, np.float64) / 255)
    return np.array([
        np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(each, 2)])
        for each in pictures.values()
        if len(each) > 1
    ])  # fmt: skip
