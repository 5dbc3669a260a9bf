"""How rows of any format become examples: which negatives are drawn, how boxes are normalised."""

from __future__ import annotations

import hashlib
import operator
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Dataset
from torchvision.ops import box_convert

from .examples import DataError, GroundingExample, MatchingExample
from .images import Picture, PictureSource

TRIES = 200
"""Draws of a random other row before a data set counts as too uniform."""

Spans = tuple[tuple[int, int], ...]


class MatchingRow(NamedTuple):
    """A captioned image as its file has it.

    Attributes:
        image: name of the image.
        caption: text that holds for it.
        negative_images, negative_captions: hard negatives to draw from; may be empty.
        where: file and line.
    """

    image: str
    caption: str
    negative_images: tuple[str, ...]
    negative_captions: tuple[str, ...]
    where: str


class GroundingRow(NamedTuple):
    """A caption with boxes as its file has it.

    Attributes:
        image: name of the image.
        caption: the text.
        boxes: (x, y, w, h) of each, in pixels of the file, from the upper left corner.
        spans: for each box, the character spans of the caption that name it.
        where: file and line, or JSON entry.
        size: (width, height) the image must have, in pixels; None where the file does not say.
    """

    image: str
    caption: str
    boxes: tuple[tuple[float, ...], ...]
    spans: tuple[Spans, ...]
    where: str
    size: tuple[int, int] | None = None


class _Reader(Dataset, ABC):
    """What readers share. Subclasses set both attributes.

    Attributes:
        images: where pictures come from.
        seed: with the index, the only source of chance: the same seed gives the same examples, in
            any process and after any resume. Set another one, e.g. per epoch, for other draws.
    """

    images: PictureSource
    seed: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def named_images(self) -> Iterator[tuple[str, str]]:
        """Every image name the file mentions, with file and line; names repeat."""

    def _start(self, index: int) -> tuple[int, random.Random]:
        """An index counted from 0, and its source of chance."""
        position = operator.index(index)
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"example {index} of a data set of {len(self)}")
        return position, random.Random(f"{self.seed}/{position}")


class MatchingDataset(_Reader, Dataset[MatchingExample]):
    """Three images and three texts per row: positive, hard negative, random.

    A hard negative is drawn from those the row lists, text and image separately. Where a row lists
    none, that of another random row stands in. The random text and the random image come from two
    more such draws. "Another row" never has this row's image or this row's caption.
    """

    @abstractmethod
    def row(self, index: int) -> MatchingRow:
        """Row `index` as the file has it, 0 ≤ index < len."""

    def __getitem__(self, index: int) -> MatchingExample:
        index, rng = self._start(index)
        row = self.row(index)
        negative_image = rng.choice(row.negative_images) if row.negative_images else None
        negative_caption = rng.choice(row.negative_captions) if row.negative_captions else None
        names, captions = [(row.image, row.where)], [row.caption]
        for image, caption in ((negative_image, negative_caption), (None, None)):
            other = self._other(row, rng) if image is None else None
            names.append((other.image, other.where) if other else (image, row.where))
            captions.append(caption or self._other(row, rng).caption)
        pictures = [self.images(name, where, rng).tensor for name, where in names]
        return MatchingExample(torch.stack(pictures), tuple(captions))

    def named_images(self) -> Iterator[tuple[str, str]]:
        for index in range(len(self)):
            row = self.row(index)
            for name in (row.image, *row.negative_images):
                yield name, row.where

    def _other(self, row: MatchingRow, rng: random.Random) -> MatchingRow:
        for _ in range(TRIES):
            other = self.row(rng.randrange(len(self)))
            if other.image != row.image and other.caption != row.caption:
                return other
        raise DataError(
            f"{row.where}: expected other rows with another image and another caption to draw a "
            f"random negative from; {TRIES} draws out of {len(self)} rows found none. Add more "
            "varied rows"
        )


class GroundingDataset(_Reader, Dataset[GroundingExample]):
    """An image, its caption, and the boxes that parts of the caption name.

    Attributes:
        overhang: how far a box may stick out of its image, in parts of the image's side; what
            sticks out is cut off.
    """

    overhang: float = float("inf")

    @abstractmethod
    def row(self, index: int) -> GroundingRow:
        """Row `index` as the file has it, 0 ≤ index < len."""

    def __getitem__(self, index: int) -> GroundingExample:
        index, rng = self._start(index)
        row = self.row(index)
        picture = self.images(row.image, row.where, rng)
        return GroundingExample(
            picture.tensor, row.caption, self._normalise(row, picture), row.spans
        )

    def named_images(self) -> Iterator[tuple[str, str]]:
        for index in range(len(self)):
            row = self.row(index)
            yield row.image, row.where

    def _normalise(self, row: GroundingRow, picture: Picture) -> torch.Tensor:
        """Boxes in pixels -> `[n, 4]` (cx, cy, w, h) in [0, 1], whatever the image's new size."""
        size = picture.width, picture.height
        if row.size not in (None, size):
            raise DataError(
                f"{row.where}: expected {row.image} to be {row.size[0]} × {row.size[1]} pixels, "
                f"which its boxes are given in; it is {size[0]} × {size[1]}. Use the images that "
                "the boxes were drawn on"
            )
        pixels = torch.tensor(row.boxes, dtype=torch.float64)
        corners = box_convert(pixels, "xywh", "xyxy") / torch.tensor(size * 2)
        inside = corners.clamp(0, 1)
        outside = (corners - inside).abs().amax(1) > self.overhang
        empty = (inside[:, 2:] <= inside[:, :2]).any(1)
        for box, bad in zip(row.boxes, (outside | empty).tolist(), strict=True):
            if bad:
                raise DataError(
                    f"{row.where}: expected a box [x, y, w, h] inside {row.image}, which is "
                    f"{size[0]} × {size[1]} pixels; got {list(box)}. Correct it; if it is "
                    "[x0, y0, x1, y1], write [x0, y0, x1 - x0, y1 - y0]"
                )
        return box_convert(inside, "xyxy", "cxcywh").float()


def mentioned_images(*datasets: MatchingDataset | GroundingDataset) -> dict[str, str]:
    """Distinct image names in order, each with the file and line that mention it first."""
    mentions: dict[str, str] = {}
    for dataset in datasets:
        for name, where in dataset.named_images():
            mentions.setdefault(name, where)
    return mentions


def images_digest(*datasets: MatchingDataset | GroundingDataset) -> str:
    """What tells their images from others: a digest of names and files' lengths, 16 hexadecimal
    digits. With precomputed latents it is that of the images they were made from.

    Raises:
        DataError: an image (or latent) is missing; names the line that mentions it.
    """
    digest = hashlib.sha256()
    for dataset in datasets:
        for name, where in mentioned_images(dataset).items():
            digest.update(f"{name}\0{dataset.images.bytes_of(name, where)}\n".encode())
    return digest.hexdigest()[:16]
