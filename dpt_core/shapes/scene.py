"""Scenes of the shapes world: where each thing is, and pictures of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .caption import COLOURS, SIZES, Caption

CANVAS = 128
"""Side of a picture in pixels."""

PIXELS = {"small": 24, "large": 40}
"""Side of a thing in pixels."""

MARGIN = 4
"""Least free space between things, and to the border, in pixels."""

TRIES = 40
"""Places that are tried for a thing."""

RGB = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 200),
    "yellow": (245, 200, 40),
    "purple": (150, 60, 180),
    "black": (38, 38, 42),
}
BACKGROUND = (238, 236, 230)


@dataclass(frozen=True)
class Thing:
    """One shape.

    Attributes:
        shape, colour, size: see :mod:`~dpt_core.shapes.caption`.
        x, y: its centre in pixels, from the upper left corner.
    """

    shape: str
    colour: str
    size: str
    x: int
    y: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Normalised (cx, cy, w, h) in [0, 1]."""
        side = PIXELS[self.size]
        return self.x / CANVAS, self.y / CANVAS, side / CANVAS, side / CANVAS


Scene = tuple[Thing, ...]


def compose(caption: Caption, rng: random.Random) -> Scene:
    """Place what a caption says: without overlap, in the order of its mentions.

    With a relation the two things lie mainly along its axis.
    """
    kinds = [mention for mention in caption.mentions for _ in range(mention.count)]
    while True:
        scene: list[Thing] = []
        for mention in kinds:
            thing = free_place(mention.shape, mention.colour, mention.size, scene, rng)
            if thing is None:
                break
            scene.append(thing)
        else:
            if caption.relation is None or _lies_along(scene, caption.relation):
                return tuple(scene)


def free_place(
    shape: str, colour: str, size: str | None, scene: Sequence[Thing], rng: random.Random
) -> Thing | None:
    """A thing where a scene has room for it, of any size where none is stated; None where
    no try found room."""
    for _ in range(TRIES):
        side = size or rng.choice(SIZES)
        reach = PIXELS[side] // 2 + MARGIN
        x, y = (rng.randint(reach, CANVAS - reach) for _ in range(2))
        thing = Thing(shape, colour, side, x, y)
        if not any(_touch(thing, other) for other in scene):
            return thing
    return None


def offset(first: Thing, second: Thing, relation: str) -> tuple[int, int]:
    """How far the first lies from the second along a relation's direction, and across it."""
    dx, dy = second.x - first.x, second.y - first.y
    return {"left": (dx, dy), "right": (-dx, dy), "above": (dy, dx), "below": (-dy, dx)}[relation]


@cache
def mask(shape: str, side: int) -> Image.Image:
    """A shape as an antialiased mask of `side` × `side` pixels."""
    fine = side * 8
    image = Image.new("L", (fine, fine), 0)
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((0, 0, fine - 1, fine - 1), fill=255)
    elif shape == "square":
        draw.rectangle((0, 0, fine - 1, fine - 1), fill=255)
    elif shape == "triangle":
        draw.polygon(((fine / 2, 0), (fine - 1, fine - 1), (0, fine - 1)), fill=255)
    else:
        third = fine // 3
        draw.rectangle((third, 0, fine - third - 1, fine - 1), fill=255)
        draw.rectangle((0, third, fine - 1, fine - third - 1), fill=255)
    return image.resize((side, side), Image.Resampling.BOX)


def render(scene: Scene) -> np.ndarray:
    """A picture `[128, 128, 3]` uint8."""
    image = Image.new("RGB", (CANVAS, CANVAS), BACKGROUND)
    for thing in scene:
        side = PIXELS[thing.size]
        corner = thing.x - side // 2, thing.y - side // 2
        image.paste(RGB[thing.colour], corner, mask(thing.shape, side))
    return np.asarray(image)


def _touch(first: Thing, second: Thing) -> bool:
    reach = (PIXELS[first.size] + PIXELS[second.size]) // 2 + MARGIN
    return abs(first.x - second.x) < reach and abs(first.y - second.y) < reach


def _lies_along(scene: list[Thing], relation: str) -> bool:
    along, across = offset(scene[0], scene[1], relation)
    return along >= 24 and abs(across) <= 0.6 * along


assert set(RGB) == set(COLOURS)
