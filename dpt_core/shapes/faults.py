"""Pictures of scenes with a fault of the kind that models make, as hard negatives to learn from."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .caption import COLOURS, SHAPES, SIZES
from .scene import CANVAS, MARGIN, PIXELS, TRIES, Scene, Thing, free_place, render


def faulty_picture(scene: Scene, rng: random.Random) -> np.ndarray:
    """A picture of a scene in which one thing is wrong, `[128, 128, 3]` uint8.

    One thing too many or too few, two of them grown together, or one of two colours or two shapes:
    so the scene's caption does not hold, nor does that of any other scene where a thing is odd.
    """
    kinds: list[Callable[[Scene, random.Random], np.ndarray]] = [_one_more, _two_colours]
    kinds += [_two_shapes, _grown_together]
    kinds += [_one_less if len(scene) > 1 else _one_more]
    return rng.choice(kinds)(scene, rng)


def _one_more(scene: Scene, rng: random.Random) -> np.ndarray:
    """A thing again somewhere else, or one that nobody asked for."""
    like = rng.choice(scene)
    if rng.random() < 0.3:
        like = replace(like, shape=rng.choice(SHAPES), colour=rng.choice(COLOURS))
    thing = free_place(like.shape, like.colour, rng.choice(SIZES), scene, rng)
    return _grown_together(scene, rng) if thing is None else render((*scene, thing))


def _one_less(scene: Scene, rng: random.Random) -> np.ndarray:
    gone = rng.randrange(len(scene))
    return render((*scene[:gone], *scene[gone + 1 :]))


def _two_colours(scene: Scene, rng: random.Random) -> np.ndarray:
    """A thing whose colour runs into another."""
    place = rng.randrange(len(scene))
    colour = rng.choice([each for each in COLOURS if each != scene[place].colour])
    other = replace(scene[place], colour=colour)
    return _run_together(scene, place, other, rng.uniform(1, 12), rng)


def _two_shapes(scene: Scene, rng: random.Random) -> np.ndarray:
    """A thing that is one shape on one side and another on the other."""
    place = rng.randrange(len(scene))
    shape = rng.choice([each for each in SHAPES if each != scene[place].shape])
    return _run_together(scene, place, replace(scene[place], shape=shape), 1.0, rng)


def _run_together(
    scene: Scene, place: int, other: Thing, blur: float, rng: random.Random
) -> np.ndarray:
    """The scene, and on one side of a thing's middle what it is with another in its place."""
    thing, angle = scene[place], rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[:CANVAS, :CANVAS]
    along = math.cos(angle) * (columns - thing.x) + math.sin(angle) * (rows - thing.y)
    share = 1 / (1 + np.exp(-(along - rng.uniform(-0.15, 0.15) * PIXELS[thing.size]) / blur))
    changed = render((*scene[:place], other, *scene[place + 1 :]))
    mixed = render(scene) * (1 - share[..., None]) + changed * share[..., None]
    return mixed.round().astype(np.uint8)


def _grown_together(scene: Scene, rng: random.Random) -> np.ndarray:
    """A thing with another of its kind or colour half over it."""
    thing = rng.choice(scene)
    alike = [each for each in scene if each is not thing and each.colour == thing.colour]
    moved = rng.choice(alike) if alike and rng.random() < 0.7 else None
    rest = tuple(each for each in scene if each is not moved)
    shape = thing.shape if rng.random() < 0.7 else rng.choice(SHAPES)
    other = moved or replace(thing, shape=shape, size=rng.choice(SIZES))
    reach = (PIXELS[thing.size] + PIXELS[other.size]) / 2
    for _ in range(TRIES):
        angle, far = rng.uniform(0, 2 * math.pi), reach * rng.uniform(0.5, 0.85)
        x, y = round(thing.x + far * math.cos(angle)), round(thing.y + far * math.sin(angle))
        least = PIXELS[other.size] // 2 + MARGIN
        if least <= min(x, y) and max(x, y) <= CANVAS - least:
            return render((*rest, replace(other, x=x, y=y)))
    return _one_less(scene, rng) if len(scene) > 1 else _two_shapes(scene, rng)
