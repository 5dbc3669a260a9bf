"""Boxes drawn onto pictures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#ffe119", "#42d4f4", "#f032e6")
VERDICTS = {True: "#12833f", False: "#c8261c", None: "#6a6a72"}
SMALLEST_FONT = 10
ENLARGED = 512
"""Pixels of the shorter side below which a picture is enlarged before it is marked."""
LINES_PER_SIDE = 22
"""Lines of text that the shorter side of a picture would hold."""

Rectangle = tuple[float, float, float, float]


def annotate(
    picture: np.ndarray,
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    name: str = "",
) -> np.ndarray:
    """Draw boxes with a label and a score each; text and lines grow with the picture.

    Args:
        picture: `[H, W, 3]` uint8.
        boxes: corners (x0, y0, x1, y1) in pixels.
        scores: one per box.
        name: what the boxes show, cut to fit; by default each box is labelled with its place in
            the list, from 1.

    Returns:
        `[H, W, 3]` uint8, a copy.
    """
    from PIL import Image, ImageColor, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    side = min(image.size)
    font = ImageFont.load_default(max(SMALLEST_FONT, round(side / LINES_PER_SIDE)))
    line = max(1, round(side / 160))
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(boxes))]
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(_drawable(box, image.size), outline=colour, width=line)
    taken: list[Rectangle] = []  # labels come after all boxes, so that no box crosses one
    for place, (box, score, colour) in enumerate(zip(boxes, scores, colours, strict=True)):
        text = _label(draw, font, name or f"#{place + 1}:", score, image.width)
        spot = _free_spot(_extent(draw, font, text), box, image.size, taken)
        taken.append(spot)
        draw.rectangle(spot, fill=colour)
        red, green, blue = ImageColor.getrgb(colour)
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        left, top, _, _ = draw.textbbox((0, 0), text, font=font)
        corner = spot[0] + 1 - left, spot[1] + 1 - top
        draw.text(corner, text, fill="black" if light else "white", font=font)
    return np.asarray(image)


def mark_boxes(
    picture: np.ndarray, marks: Sequence[tuple[Sequence[float], str, bool | None]]
) -> np.ndarray:
    """Draw what is right and wrong onto an enlarged copy, so that labels cover little.

    Args:
        picture: `[H, W, 3]` uint8.
        marks: corners (x0, y0, x1, y1) in pixels of the picture, a label, and whether it is right:
            green, red, or grey where that is not known.

    Returns:
        `[H', W', 3]` uint8; the shorter side has :data:`ENLARGED` pixels at least.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    scale = max(1.0, ENLARGED / min(height, width))
    size = (round(width * scale), round(height * scale))
    image = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    draw, side = ImageDraw.Draw(image), min(size)
    font = ImageFont.load_default(max(SMALLEST_FONT, round(side / LINES_PER_SIDE)))
    line = max(2, round(side / 160))
    boxes = [[scale * each for each in box] for box, _, _ in marks]
    for box, (_, _, right) in zip(boxes, marks, strict=True):
        draw.rectangle(_drawable(box, size), outline=VERDICTS[right], width=line)
    taken: list[Rectangle] = []
    for box, (_, text, right) in zip(boxes, marks, strict=True):
        while len(text) > 1 and _extent(draw, font, text)[0] > size[0]:
            text = text[:-2] + "…"
        spot = _free_spot(_extent(draw, font, text), box, size, taken)
        taken.append(spot)
        draw.rectangle(spot, fill=VERDICTS[right])
        left, top, _, _ = draw.textbbox((0, 0), text, font=font)
        draw.text((spot[0] + 1 - left, spot[1] + 1 - top), text, fill="white", font=font)
    return np.asarray(image)


def _drawable(box: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """A box moved inside the picture, at least one pixel wide and high."""
    (x0, y0, x1, y1), (width, height) = box, size
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, max(x0, min(x1, width) - 1), max(y0, min(y1, height) - 1)


def _label(draw: Any, font: Any, name: str, score: float, width: int) -> str:
    """Name and score, the name shortened until both fit into the picture's width."""

    def text(length: int) -> str:
        cut = name if length == len(name) else f"{name[:length]}…" if length else ""
        return f"{cut} {score:.2f}".lstrip()

    def too_wide(length: int) -> bool:
        return _extent(draw, font, text(length))[0] > width

    if not too_wide(len(name)):
        return text(len(name))
    # The longest one that fits; a name may be a page long.
    return text(max(0, bisect_left(range(len(name) + 1), True, key=too_wide) - 1))


def _extent(draw: Any, font: Any, text: str) -> tuple[int, int]:
    """Width and height of a label, with a margin of a pixel."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    return int(right - left) + 3, int(bottom - top) + 3


def _free_spot(
    extent: tuple[int, int], box: Sequence[float], size: tuple[int, int], taken: list[Rectangle]
) -> Rectangle:
    """Where a label goes: above its box, inside, below, or the first free line of the picture."""
    (wide, high), (width, height) = extent, size
    lines = [box[1] - high, box[1], box[3] - high, box[3], *range(0, height - high + 1, high)]
    x0 = max(0, min(box[0], width - wide))
    spots = [(x0, y0, x0 + wide - 1, y0 + high - 1) for y0 in lines]
    inside = [spot for spot in spots if spot[1] >= 0 and spot[3] < height]
    free = [spot for spot in inside if not any(_meet(spot, other) for other in taken)]
    return next(iter(free or inside), (x0, 0, x0 + wide - 1, high - 1))


def _meet(one: Rectangle, other: Rectangle) -> bool:
    apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not apart
