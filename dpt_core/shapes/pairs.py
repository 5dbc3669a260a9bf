"""Pairs of scenes that differ in one thing: the shapes world as data."""

from __future__ import annotations

import random
from typing import NamedTuple

from .caption import Caption, hard_negative, imagine, word
from .scene import Scene, compose


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
    caption = imagine(rng)
    wrong = hard_negative(caption, rng)
    texts = [word(each, rng).text for each in (caption, wrong)]
    scenes = [compose(each, rng) for each in (caption, wrong)]
    return ScenePair(caption, texts[0], scenes[0], texts[1], scenes[1])
