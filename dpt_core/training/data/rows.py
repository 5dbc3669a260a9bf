"""Captioned pictures in memory: rows from any source, their negatives, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .datasets import GroundingDataset, GroundingRow, MatchingDataset, MatchingRow
from .examples import DataError
from .images import PictureSource

NEGATIVES = ("auto", "file", "none")
"""Where hard negative captions come from: made of the caption where the file names none; only from
the file; nowhere."""

PER_CAPTION, IN_ALL = 4, 8192
"""Hard negatives made of a caption, and of all captions, at most; each caption gets one."""

HELD_OUT = 10
"""One in so many pictures is not trained on."""

MakeNegatives = Callable[[str, int, int], list[str]]
"""From a caption, a limit and a seed to captions that do not hold where it does."""


class MatchingRows(MatchingDataset):
    """Matching examples of rows in memory; see :class:`~.datasets.MatchingDataset`."""

    def __init__(self, rows: Sequence[MatchingRow], images: PictureSource, seed: int = 0) -> None:
        self._rows, self.images, self.seed = rows, images, seed

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> MatchingRow:
        return self._rows[index]


class GroundingRows(GroundingDataset):
    """Grounding examples of rows in memory; see :class:`~.datasets.GroundingDataset`."""

    def __init__(self, rows: Sequence[GroundingRow], images: PictureSource, seed: int = 0) -> None:
        self._rows, self.images, self.seed = rows, images, seed

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> GroundingRow:
        return self._rows[index]


@dataclass(frozen=True)
class CaptionedPictures:
    """What an adapter is trained on.

    Attributes:
        matching: a row for each captioned picture; one that counts twice stands there twice.
        grounding: a row for each phrase of a picture that has boxes; may be empty.
        images: gives the pictures by the names in the rows, `[3, size, size]` in [-1, 1].
    """

    matching: tuple[MatchingRow, ...]
    grounding: tuple[GroundingRow, ...]
    images: PictureSource

    def names(self) -> dict[str, str]:
        """Names of all pictures, in order, each with the place that mentions it first."""
        found: dict[str, str] = {}
        for row in self.matching:
            for name in (row.image, *row.negative_images):
                found.setdefault(name, row.where)
        for row in self.grounding:
            found.setdefault(row.image, row.where)
        return found

    def texts(self) -> list[str]:
        """Every distinct text, in order."""
        found = dict.fromkeys(row.caption for row in self.matching)
        found |= dict.fromkeys(text for row in self.matching for text in row.negative_captions)
        return list(found | dict.fromkeys(row.caption for row in self.grounding))

    def digest(self) -> str:
        """What tells this data from other data, 16 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.images.size}".encode())
        for row in (*self.matching, *self.grounding):
            digest.update(repr(row._replace(where="")).encode())
        for name, where in self.names().items():
            digest.update(f"{self.images.bytes_of(name, where)}\n".encode())
        return digest.hexdigest()[:16]

    def with_images(self, images: PictureSource) -> CaptionedPictures:
        """The same rows with other pictures, or latents in their place."""
        return replace(self, images=images)


class WithNegatives(NamedTuple):
    """Data with its hard negatives.

    Attributes:
        data: the data.
        captions: distinct captions.
        with_negative: how many of them have a hard negative.
    """

    data: CaptionedPictures
    captions: int
    with_negative: int


def with_negatives(
    data: CaptionedPictures, mode: str, make: MakeNegatives, seed: int = 0
) -> WithNegatives:
    """Give captions their hard negatives; those in the data win.

    Args:
        data: as read.
        mode: one of :data:`NEGATIVES`.
        make: makes negatives of a caption.
        seed: of what is made.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in NEGATIVES:
        raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}; got {mode!r}")
    made: dict[str, tuple[str, ...]] = {}
    captions = len({row.caption for row in data.matching})
    limit = min(PER_CAPTION, max(1, IN_ALL // max(1, captions)))

    def found(row: MatchingRow) -> tuple[str, ...]:
        if mode == "none":
            return ()
        if row.negative_captions or mode == "file":
            return row.negative_captions
        if row.caption not in made:
            made[row.caption] = tuple(make(row.caption, limit, seed))
        return made[row.caption]

    rows = tuple(row._replace(negative_captions=found(row)) for row in data.matching)
    found_for = {row.caption: bool(row.negative_captions) for row in rows}
    return WithNegatives(replace(data, matching=rows), captions, sum(found_for.values()))


def split_held_out(
    data: CaptionedPictures, every: int = HELD_OUT
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Rows to train on, and rows to tell by.

    A picture is held out by its name, together with those that serve as its hard negatives, so that
    no picture is in both parts.

    Raises:
        DataError: there are too few pictures to hold some out.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (up := parent.setdefault(name, name)) != name:
            name = up
        return name

    for row in data.matching:
        for other in row.negative_images:
            parent[max(root(row.image), root(other))] = min(root(row.image), root(other))
    groups = sorted({root(name) for name in data.names()}, key=_shuffled)
    aside = set(groups[: max(2, round(len(groups) / every))])
    if len(groups) < 6:
        raise DataError(
            f"expected at least 6 different pictures, 2 of them to tell by; got {len(groups)}. Add "
            "captioned pictures"
        )

    def part(held: bool) -> CaptionedPictures:
        return replace(
            data,
            matching=_where(data.matching, lambda name: (root(name) in aside) == held),
            grounding=_where(data.grounding, lambda name: (root(name) in aside) == held),
        )

    return part(False), part(True)


def by_phrase(rows: Iterable[GroundingRow]) -> list[GroundingRow]:
    """A row for each phrase with its boxes: what a phrase names is asked for by the phrase alone.

    Rows whose boxes have no words keep their caption.
    """
    found: list[GroundingRow] = []
    for row in rows:
        boxes: dict[str, list[tuple[float, ...]]] = {}
        for box, spans in zip(row.boxes, row.spans, strict=True):
            words = " ".join(row.caption[start:end] for start, end in spans) or row.caption
            boxes.setdefault(words, []).append(box)
        for words, each in boxes.items():
            whole = (((0, len(words)),),) * len(each)
            found.append(row._replace(caption=words, boxes=tuple(each), spans=whole))
    return found


def _where(rows: Sequence, wanted: Callable[[str], bool]) -> tuple:
    return tuple(row for row in rows if wanted(row.image))


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
