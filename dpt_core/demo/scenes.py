"""Captioned scenes of the shapes world, drawn as they are asked for: data to try training with."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from ..shapes.caption import phrase
from ..shapes.pairs import TRAINING_SEED, ScenePair, pair_captions, scene_pair
from ..shapes.scene import CANVAS, render
from ..training.data.datasets import GroundingRow, MatchingRow
from ..training.data.images import Picture
from ..training.data.rows import CaptionedPictures
from .datasets import to_tensor


class ScenePictures:
    """Scenes by name, `pair/which` (a :class:`~dpt_core.training.data.images.PictureSource`)."""

    folder, size = Path(), CANVAS

    def __call__(self, name: str, where: str, rng: random.Random | None = None) -> Picture:
        index, which = map(int, name.split("/"))
        pair = _pair(index)
        return Picture(to_tensor(render((pair.scene, pair.wrong_scene)[which])), CANVAS, CANVAS)

    def bytes_of(self, name: str, where: str) -> int:
        """Of no file: their names tell them apart."""
        return 0


def demo_scenes(count: int) -> CaptionedPictures:
    """Scenes in pairs that differ in one thing, each with its caption and the boxes it names.

    Args:
        count: of scenes; of each pair the other one is the hard negative.
    """
    matching, grounding = [], []
    for number in range(count):
        index, which = divmod(number, 2)
        name, other, pair = f"{index}/{which}", f"{index}/{1 - which}", _pair(index)
        texts, scene = (pair.text, pair.wrong_text), (pair.scene, pair.wrong_scene)[which]
        captions, where = pair_captions(TRAINING_SEED, index), f"scene {name}"
        matching.append(MatchingRow(name, texts[which], (other,), (texts[1 - which],), where))
        rng = random.Random(f"phrase-{name}")
        things: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for thing in scene:
            things.setdefault((thing.colour, thing.shape), []).append(thing.box)
        for mention in captions[which].mentions:
            words = phrase(mention, rng)
            boxes = tuple(_pixels(box) for box in things[mention.colour, mention.shape])
            spans = (((0, len(words)),),) * len(boxes)
            grounding.append(GroundingRow(name, words, boxes, spans, where))
    return CaptionedPictures(tuple(matching), tuple(grounding), ScenePictures())


@lru_cache(maxsize=512)
def _pair(index: int) -> ScenePair:
    return scene_pair(TRAINING_SEED, index)


def _pixels(box: tuple[float, float, float, float]) -> tuple[float, ...]:
    """Normalised (cx, cy, w, h) as (x, y, w, h) in pixels."""
    x, y, width, height = (CANVAS * each for each in box)
    return x - width / 2, y - height / 2, width, height
