"""Held-out scenes of the shapes world as examples of matching and grounding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from ..shapes.caption import phrase
from ..shapes.pairs import ScenePair, scene_pair
from ..shapes.scene import Scene, render
from ..training.data.examples import GroundingExample, MatchingExample

WORLD = 1000
"""Seed of the held-out scenes; training uses those below 8."""


class Phrase(NamedTuple):
    """A referring expression: a phrase that names exactly one thing.

    Attributes:
        text: the phrase.
        box: `[4]` normalised (cx, cy, w, h) of the thing.
    """

    text: str
    box: tuple[float, float, float, float]


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


class SceneMatching(Sequence[MatchingExample]):
    """Scenes with their hard negative and with the next scene in place of a random one.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> MatchingExample:
        pair, other = scene_pair(WORLD, index), scene_pair(WORLD, index + 1)
        scenes = pair.scene, pair.wrong_scene, other.scene
        return MatchingExample(
            torch.stack([_pixels(scene) for scene in scenes]),
            (pair.text, pair.wrong_text, other.text),
        )


class ScenePhrases(Sequence[GroundingExample]):
    """Scenes with a phrase that names one thing; those without one are left out.

    Args:
        count: of scenes that are looked at.
    """

    def __init__(self, count: int) -> None:
        pairs = (scene_pair(WORLD, index) for index in range(count))
        self._found = [(pair.scene, each) for pair in pairs if (each := unique_phrase(pair))]

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> GroundingExample:
        scene, found = self._found[index]
        spans = (((0, len(found.text)),),)
        return GroundingExample(_pixels(scene), found.text, torch.tensor([found.box]), spans)


def _pixels(scene: Scene) -> torch.Tensor:
    """A scene's picture `[3, 128, 128]` in [-1, 1]."""
    picture = torch.from_numpy(np.array(render(scene)))
    return rearrange(picture, "h w c -> c h w").float() / 127.5 - 1
