"""Captioned scenes of the shapes world, drawn as they are asked for: data to try training with."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..shapes.caption import COLOURS, SHAPES, phrase
from ..shapes.judge import read
from ..shapes.pairs import TRAINING_SEED, ScenePair, pair_captions, scene_pair
from ..shapes.scene import CANVAS, render
from ..training.data.datasets import GroundingRow, MatchingRow
from ..training.data.drawn import prompts_of, words_of
from ..training.data.examples import DataError
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


def shapes_boxes(
    pictures: Sequence[torch.Tensor], parts: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, Any]] | None]:
    """What a detector would find in pictures of the shapes world; None for a malformed one.

    Args:
        pictures: `[H, W, 3]` each, in [0, 1].
        parts: what the prompts consist of.

    Raises:
        DataError: they are of another world.
    """
    words = words_of(prompts_of(parts))
    others = sorted(words.things - set(SHAPES)) or sorted(words.attributes - set(COLOURS))
    if others:
        raise DataError(
            "without boxes only pictures of the shapes world can be read; these prompts name "
            f"{', '.join(others[:3])}. Wire a detector's boxes"
        )
    return [_boxes(picture.cpu().float().numpy()) for picture in pictures]


def _boxes(picture: np.ndarray) -> list[dict[str, Any]] | None:
    height, width = picture.shape[:2]
    found = []
    for each in read(picture):
        if each.shape is None or each.colour is None:
            return None
        sides = zip(("x", "y", "width", "height"), _pixels(each.box, width, height), strict=True)
        found.append({**dict(sides), "label": f"{each.colour} {each.shape}"})
    return found


@lru_cache(maxsize=512)
def _pair(index: int) -> ScenePair:
    return scene_pair(TRAINING_SEED, index)


def _pixels(
    box: tuple[float, float, float, float], across: int = CANVAS, down: int = CANVAS
) -> tuple[float, ...]:
    """Normalised (cx, cy, w, h) as (x, y, w, h) in pixels."""
    x, y, width, height = (side * each for side, each in zip((across, down) * 2, box, strict=True))
    return x - width / 2, y - height / 2, width, height
