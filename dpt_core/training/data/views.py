"""Views of captioned pictures: mirrored, and parts of them, with captions and boxes to match.

Few pictures are soon learned by heart; what is seen anew each time has to be understood.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch.nn.functional import interpolate

from ...paraphrases import reordered
from .datasets import GroundingRow, MatchingRow
from .images import Picture, PictureSource
from .rows import VIEW, CaptionedPictures, split_held_out

SMALLEST = 0.75
"""Side of the smallest part, in sides of the picture."""

WITHOUT_BOXES = 0.9
"""The same of pictures without boxes, where things may lie anywhere."""

MARGIN = 0.02
"""How far a part reaches beyond the boxes in it, in sides of the picture."""

REORDERED = 0.5
"""Share of the captions of views that name their things in another order."""

_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


class View(NamedTuple):
    """A part of a picture, mirrored or not.

    Attributes:
        name: of the picture.
        left, top: corner of the part in [0, 1].
        side: of it in (0, 1].
        mirrored: left and right swapped, of the part.
    """

    name: str
    left: float
    top: float
    side: float
    mirrored: bool


class Views:
    """Views by their names (a :class:`~.images.PictureSource`).

    Args:
        pictures: the pictures.
        views: by name; other names are those of whole pictures.
    """

    def __init__(self, pictures: PictureSource, views: Mapping[str, View]) -> None:
        self.folder, self.size = pictures.folder, pictures.size
        self._pictures, self._views = pictures, views

    def __call__(self, name: str, where: str, rng: random.Random | None = None) -> Picture:
        view = self._views.get(name)
        if view is None:
            return self._pictures(name, where, rng)
        picture, width, height = self._pictures(view.name, where, rng)
        size = picture.shape[-1]
        left, top, side = (round(each * size) for each in (view.left, view.top, view.side))
        part = picture[None, :, top : top + side, left : left + side]
        part = interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
        part = part.flip(-1) if view.mirrored else part
        return Picture(part, round(view.side * width), round(view.side * height))

    def bytes_of(self, name: str, where: str) -> int:
        view = self._views.get(name)
        return self._pictures.bytes_of(view.name if view else name, where)


def with_views(data: CaptionedPictures, count: int, seed: int = 0) -> CaptionedPictures:
    """Data with further views of every picture that is trained on, every second one mirrored.

    A part holds all boxes of its picture and of its hard negatives. Mirrored, *left* and *right*
    change places in the texts; half of them name their things in another order.

    Args:
        data: captioned pictures.
        count: views of each picture, the whole one among them.
        seed: of the parts.
    """
    if count == 1:
        return data
    rest, held = split_held_out(data)
    named: dict[str, list[GroundingRow]] = {}
    for row in rest.grounding:
        named.setdefault(row.image, []).append(row)
    sizes = {name: data.images(name, rows[0].where, None)[1:] for name, rows in named.items()}
    boxes = {
        name: [_corners(box, sizes[name]) for row in rows for box in row.boxes]
        for name, rows in named.items()
    }
    matching, grounding = list(rest.matching), list(rest.grounding)
    views: dict[str, View] = {}
    boxed: set[str] = set()
    for number in range(1, count):
        for row in rest.matching:
            names = (row.image, *row.negative_images)
            around = [box for name in names for box in boxes.get(name, ())]
            rng = random.Random(f"{seed}/view/{min(names)}/{number}")
            view = _view(around, number % 2 == 1, rng)
            label = {name: f"{name}{VIEW}{min(names)}/{number}" for name in names}
            if label[row.image] not in boxed:
                boxed.add(label[row.image])
                grounding += [
                    _boxes_seen(each, label[row.image], view, sizes[row.image])
                    for each in named.get(row.image, ())
                ]
            views |= {label[name]: view._replace(name=name) for name in names}
            matching.append(_texts_seen(row, label, view, rng))
    return replace(
        data,
        matching=(*matching, *held.matching),
        grounding=(*grounding, *held.grounding),
        images=Views(data.images, views),
        others=_others_seen(data.others),
    )


def _texts_seen(
    row: MatchingRow, label: Mapping[str, str], view: View, rng: random.Random
) -> MatchingRow:
    """Captions that say what a view shows, half of them in another order."""

    def said(text: str) -> str:
        text = swapped(text) if view.mirrored else text
        return reordered(text) if rng.random() < REORDERED else text

    return MatchingRow(
        label[row.image],
        said(row.caption),
        tuple(label[name] for name in row.negative_images),
        tuple(map(said, row.negative_captions)),
        row.where,
    )


def _others_seen(others: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Further negatives of captions, also of those that :func:`_texts_seen` makes of them."""
    mirrored = {swapped(text): tuple(map(swapped, negatives)) for text, negatives in others.items()}
    ways = mirrored | dict(others)
    return {reordered(text): negatives for text, negatives in ways.items()} | ways


def swapped(text: str) -> str:
    """A text of the mirrored picture: left for right and right for left."""

    def other(found: re.Match) -> str:
        turned = "right" if found[0].lower() == "left" else "left"
        return turned.title() if found[0][0].isupper() else turned

    return _SIDES.sub(other, text)


def _view(boxes: Sequence[tuple[float, ...]], mirrored: bool, rng: random.Random) -> View:
    """A square part with all boxes in it."""
    left, top, right, bottom = 0.5, 0.5, 0.5, 0.5
    smallest = SMALLEST if boxes else WITHOUT_BOXES
    if boxes:
        left, top = (max(0.0, min(box[n] for box in boxes) - MARGIN) for n in (0, 1))
        right, bottom = (min(1.0, max(box[n] for box in boxes) + MARGIN) for n in (2, 3))
    side = rng.uniform(max(smallest, right - left, bottom - top), 1.0)
    x, y = (
        rng.uniform(max(0.0, high - side), min(low, 1.0 - side))
        for low, high in ((left, right), (top, bottom))
    )
    return View("", x, y, side, mirrored)


def _corners(box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """Of a box (x, y, w, h) in pixels, in [0, 1]."""
    (x, y, w, h), (width, height) = box, size
    return x / width, y / height, (x + w) / width, (y + h) / height


def _boxes_seen(row: GroundingRow, name: str, view: View, size: tuple[int, int]) -> GroundingRow:
    """Boxes in pixels of a view; those of hard negatives' pictures do not count."""
    width, height = size
    boxes = []
    for x, y, w, h in row.boxes:
        x, y = x - view.left * width, y - view.top * height
        boxes.append((view.side * width - x - w if view.mirrored else x, y, w, h))
    if not view.mirrored:
        return row._replace(image=name, boxes=tuple(boxes), size=None)
    spans = tuple(
        tuple((len(swapped(row.caption[:start])), len(swapped(row.caption[:end])))
              for start, end in each)
        for each in row.spans
    )  # fmt: skip
    caption = swapped(row.caption)
    return row._replace(image=name, caption=caption, boxes=tuple(boxes), spans=spans, size=None)
