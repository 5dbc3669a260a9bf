"""Read a picture back into things and say whether a caption holds. No learned part.

Every pixel is explained as background with so much of one palette colour over it, which also
explains antialiased and blurred rims. Pixels that are mostly one colour form connected blobs; a
blob is the shape that, drawn with the same area and centre of mass, covers it best, if that fit is
good and clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

from .caption import COLOURS, RELATIONS, SHAPES, Caption, Mention, phrase
from .scene import BACKGROUND, CANVAS, RGB, mask, offset

SMOOTHING = 0.6
"""Standard deviation in pixels of the blur that takes out grain before pixels are classified."""

FARTHEST_PIXEL = 60.0
"""RGB distance (of 255) from every mixture of background and palette at which a pixel is odd."""

FARTHEST_COLOUR = 48.0
"""RGB distance between the colour of a blob's inside and the palette; the closest two of the
palette, blue and purple, are 116 apart."""

BACKGROUND_REACH = 55.0
"""RGB distance up to which a pixel is background, however uneven."""

LEAST_CORE = 25
"""Pixels that are left of a blob when its rim is taken off; below it is a speck or an edge."""

LEAST_FIT = 0.8
"""Intersection over union of a blob and a shape, from which it may be that shape."""

LEAST_CLARITY = 0.95
"""That, plus its lead over the next shape: half a circle and half a square have 0.93."""

SIDES = (17, 31.5, 52)
"""Side in pixels of a thing: at least, from where on it is large, and at most."""

NEAR = 8.0
"""Least distance in pixels of two things along the axis of a relation."""

TEMPLATE = 40
"""Side in pixels at which outlines are sampled."""

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Found:
    """Something in a picture; None for what is not recognised.

    Attributes:
        shape, colour, size: see :mod:`~dpt_core.shapes.caption`.
        x, y: centre in pixels of a 128-pixel canvas, from the upper left corner.
        box: normalised (cx, cy, w, h) in [0, 1].
    """

    shape: str | None
    colour: str | None
    size: str | None
    x: float
    y: float
    box: tuple[float, float, float, float]

    def is_a(self, mention: Mention) -> bool:
        """Whether this is one of the things that are mentioned."""
        return (
            self.shape == mention.shape
            and self.colour == mention.colour
            and mention.size in (None, self.size)
        )


@dataclass(frozen=True)
class Verdict:
    """Whether a caption holds for a picture.

    Attributes:
        holds: nothing failed.
        failures: what failed, in words, as in "2 red circles instead of 3".
        found: what is in the picture.
    """

    holds: bool
    failures: tuple[str, ...]
    found: tuple[Found, ...]


def judge(picture: np.ndarray, caption: Caption) -> Verdict:
    """Whether a caption holds: its things are in the picture, nothing else is, and its relation
    is true.

    Args:
        picture: see :func:`read`.
        caption: what should be there; a size counts only where it is stated. The first thing of
            a relation lies at least 8 pixels of 128 along its axis from the second.

    Raises:
        ValueError: see :func:`read`.
    """
    found = read(picture)
    failures = (*_wrong_things(found, caption), *_wrong_relation(found, caption))
    return Verdict(not failures, failures, found)


def read(picture: np.ndarray) -> tuple[Found, ...]:
    """The things in a picture, by colour; what is no thing comes with None for its shape.

    Args:
        picture: `[H, W, 3]`, uint8 or float in [0, 1]; H stands for the canvas's 128 pixels.

    Raises:
        ValueError: the array is not such a picture.
    """
    pixels = ndimage.gaussian_filter(_on_canvas(picture), (SMOOTHING, SMOOTHING, 0), truncate=2.5)
    over = pixels - np.float32(BACKGROUND)
    foreground = np.einsum("hwc,hwc->hw", over, over) > BACKGROUND_REACH**2
    mostly = np.full(foreground.shape, -1)  # index of a colour, its end for an odd one
    mostly[foreground] = _explain(over[foreground])
    found, taken = [], np.zeros(foreground.shape, bool)
    for index, colour in enumerate((*COLOURS, None)):
        for blob, box in _blobs(mostly == index):
            seen = pixels[box][ndimage.binary_erosion(blob)].mean(0)
            known = colour and np.linalg.norm(seen - RGB[colour]) <= FARTHEST_COLOUR
            found.append(_recognise(blob, box, colour if known else None, taken.shape))
            taken[box] |= blob
    rest = foreground & ~ndimage.binary_dilation(taken, np.ones((3, 3)), iterations=2)
    core = ndimage.binary_erosion(rest, np.ones((3, 3)))
    if np.count_nonzero(core) >= LEAST_CORE:
        found.append(
            _found(None, None, None, ndimage.find_objects(core.astype(int))[0], core.shape)
        )
    return tuple(found)


def _on_canvas(picture: np.ndarray) -> np.ndarray:
    """A picture as `[128, W, 3]` float32 in 0..255."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"expected a picture [H, W, 3], got an array {list(picture.shape)}")
    if np.issubdtype(picture.dtype, np.floating):
        picture = np.rint(np.nan_to_num(picture).clip(0, 1) * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ValueError(f"expected uint8, or float in [0, 1], got {picture.dtype}")
    height, width = picture.shape[:2]
    if height != CANVAS:
        size = max(1, round(width * CANVAS / height)), CANVAS
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture.astype(np.float32)


def _explain(over: np.ndarray) -> np.ndarray:
    """Which palette colour explains a pixel as a mixture of background and mostly that colour.

    Args:
        over: RGB less that of the background, `[N, 3]` float32.

    Returns:
        `[N]`: index in :data:`COLOURS`; its length where no colour explains the pixel; -1 where
        less than half of the mixture is a colour.
    """
    ways = np.float32([RGB[colour] for colour in COLOURS]) - np.float32(BACKGROUND)  # [6, 3]
    along, length = over @ ways.T, np.square(ways).sum(-1)
    amounts = np.clip(along / length, 0, 1)  # [N, 6]
    # |over - amount · way|² without the |over|², which is the same for all colours
    errors = amounts * (amounts * length - 2 * along)
    best, each = errors.argmin(-1), np.arange(len(over))
    odd = errors[each, best] + np.square(over).sum(-1) > FARTHEST_PIXEL**2
    return np.where(odd, len(COLOURS), np.where(amounts[each, best] > 0.5, best, -1))


def _blobs(solid: np.ndarray) -> Iterator[tuple[np.ndarray, Box]]:
    """The connected parts of a mask that are more than specks and edges, each cut to its box."""
    if np.count_nonzero(solid) < LEAST_CORE:
        return
    parts, _ = ndimage.label(solid)
    core = np.bincount(parts[ndimage.binary_erosion(solid, np.ones((3, 3)))])
    boxes = ndimage.find_objects(parts)
    for part in np.flatnonzero(core >= LEAST_CORE):
        if part:
            yield parts[boxes[part - 1]] == part, boxes[part - 1]


def _recognise(blob: np.ndarray, box: Box, colour: str | None, canvas: tuple[int, int]) -> Found:
    least, large, most = SIDES
    fits, sides = zip(*(_fit(blob, shape) for shape in SHAPES), strict=True)
    *_, second, best = np.argsort(fits)
    clear = fits[best] >= LEAST_FIT and 2 * fits[best] - fits[second] >= LEAST_CLARITY
    if not clear or not least <= sides[best] <= most:
        return _found(None, colour, None, box, canvas)
    return _found(SHAPES[best], colour, "large" if sides[best] >= large else "small", box, canvas)


def _fit(blob: np.ndarray, shape: str) -> tuple[float, float]:
    """How well a shape of the same area and centre of mass covers a blob.

    Area and centre outlast blur, a bounding box does not: a triangle loses its tip.

    Returns:
        Intersection over union, and the side in pixels of the shape.
    """
    points, centre, filled = _outline(shape)
    side = np.sqrt(np.count_nonzero(blob) / filled)
    at = points * side + (np.argwhere(blob).mean(0) + 0.5 - centre * side)[:, None]
    rows, columns = np.floor(at).astype(int)
    height, width = blob.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    covered = np.count_nonzero(blob[rows[inside], columns[inside]]) / points.shape[1]
    return covered / (2 - covered), float(side)


@cache
def _outline(shape: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The points of a shape in its unit box (row, column) `[2, N]`, their mean, and its area."""
    drawn = np.asarray(mask(shape, TEMPLATE)) > 127
    points = (np.argwhere(drawn).T + 0.5) / TEMPLATE
    return points, points.mean(1), drawn.mean()


def _found(
    shape: str | None, colour: str | None, size: str | None, box: Box, canvas: tuple[int, int]
) -> Found:
    rows, columns = box
    (y, h), (x, w) = (((s.start + s.stop) / 2, s.stop - s.start) for s in (rows, columns))
    height, width = canvas
    normalised = x / width, y / height, w / width, h / height
    return Found(shape, colour, size if shape else None, x, y, normalised)


def _wrong_things(found: tuple[Found, ...], caption: Caption) -> Iterator[str]:
    """Too few, too many, and what nobody asked for."""
    # Mentions that state a size choose first: the others may take any.
    mentions = sorted(set(caption.mentions), key=lambda m: (m.size is None, m.colour, m.shape))
    wanted = {m: m.count * caption.mentions.count(m) for m in mentions}
    there = dict.fromkeys(mentions, 0)
    left = [thing for thing in found if thing.shape and thing.colour]
    for limited in (True, False):
        for mention in mentions:
            fitting = [thing for thing in left if thing.is_a(mention)]
            fitting = fitting[: wanted[mention]] if limited else fitting
            there[mention] += len(fitting)
            left = [thing for thing in left if thing not in fitting]
    for mention in mentions:
        if there[mention] != wanted[mention]:
            yield _miscount(mention, there[mention], wanted[mention])
    sized = {(mention.colour, mention.shape) for mention in mentions if mention.size}
    for thing in left:
        size = f"{thing.size} " if (thing.colour, thing.shape) in sized else ""
        yield f"an extra {size}{thing.colour} {thing.shape}"
    for thing in found:
        if thing.shape is None:
            yield f"something {f'{thing.colour} ' if thing.colour else ''}that is no shape"
        elif thing.colour is None:
            yield f"a {thing.shape} of no known colour"


def _miscount(mention: Mention, there: int, wanted: int) -> str:
    if there == 0 and wanted == 1:
        return f"no {_noun(mention, 1)}"
    return f"{there or 'no'} {_noun(mention, there)} instead of {wanted}"


def _noun(mention: Mention, count: int) -> str:
    """A mention's phrase in the singular or plural, without its number."""
    return phrase(replace(mention, count=1 if count == 1 else 2)).split(" ", 1)[1]


def _wrong_relation(found: tuple[Found, ...], caption: Caption) -> Iterator[str]:
    """The relation, if both its things are there and no two of them lie as it says."""
    if caption.relation is None:
        return
    first, second = caption.mentions
    pairs = [
        (a, b) for a in found for b in found if a is not b and a.is_a(first) and b.is_a(second)
    ]
    if pairs and not any(offset(a, b, caption.relation)[0] >= NEAR for a, b in pairs):
        wording = RELATIONS[caption.relation][0]
        yield f"the {_noun(first, 1)} is not {wording} the {_noun(second, 1)}"
