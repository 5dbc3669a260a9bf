"""Pairs of scenes that differ in one thing: the shapes world as data."""

from __future__ import annotations

import random
from typing import NamedTuple

from .caption import Caption, hard_negative, imagine, word
from .scene import Scene, compose

TRAINING_SEED = 0
TRAINING_PAIRS = 20480
"""The world that the demo models are trained on, and how many of its pairs."""


class ScenePair(NamedTuple):
    """A scene and a hard negative of it, each with its caption in words."""

    caption: Caption
    text: str
    scene: Scene
    wrong_text: str
    wrong_scene: Scene


def scene_pair(seed: int, index: int) -> ScenePair:
    """Pair `index` of the world with that seed."""
    rng = random.Random(f"scenes-{seed}-{index}")
    caption, wrong = _captions(rng)
    texts = [word(each, rng).text for each in (caption, wrong)]
    scenes = [compose(each, rng) for each in (caption, wrong)]
    return ScenePair(caption, texts[0], scenes[0], texts[1], scenes[1])


def pair_captions(seed: int, index: int) -> tuple[Caption, Caption]:
    """The captions of :func:`scene_pair`, the right one and its hard negative, without scenes."""
    return _captions(random.Random(f"scenes-{seed}-{index}"))


def _captions(rng: random.Random) -> tuple[Caption, Caption]:
    caption = imagine(rng)
    return caption, hard_negative(caption, rng)
