"""Captioned pictures in memory: rows from any source, their negatives, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

VIEW = "\0"
"""In the name of a view of a picture, what comes after the picture's own."""

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
        others: caption → texts that differ from it in one thing and do not hold where it does.
    """

    matching: tuple[MatchingRow, ...]
    grounding: tuple[GroundingRow, ...]
    images: PictureSource
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        found |= dict.fromkeys(text for texts in self.others.values() for text in texts)
        return list(found | dict.fromkeys(row.caption for row in self.grounding))

    def digest(self) -> str:
        """What tells this data from other data, 16 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.images.size}".encode())
        for row in (*self.matching, *self.grounding):
            digest.update(repr(row._replace(where="")).encode())
        digest.update(repr(sorted(self.others.items())).encode())
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

    With *auto* all captions have those that were made as further ones (`others`), too.

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
    captions = list(dict.fromkeys(row.caption for row in data.matching))
    limit = min(PER_CAPTION, max(1, IN_ALL // max(1, len(captions))))
    made: dict[str, tuple[str, ...]] = {}
    if mode == "auto":
        made = {text: tuple(make(text, limit, seed)) for text in captions}

    def found(row: MatchingRow) -> tuple[str, ...]:
        if mode == "none":
            return ()
        return row.negative_captions or made.get(row.caption, ())

    rows = tuple(row._replace(negative_captions=found(row)) for row in data.matching)
    found_for = {row.caption: bool(row.negative_captions) for row in rows}
    others = {text: texts for text, texts in made.items() if texts}
    data = replace(data, matching=rows, others=others)
    return WithNegatives(data, len(captions), sum(found_for.values()))


def split_held_out(
    data: CaptionedPictures, every: int = HELD_OUT
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Rows to train on, and rows to tell by.

    A picture is held out by its name, together with those that serve as its hard negatives and all
    views of them, so that no picture is in both parts. What is told by are whole pictures.

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
            one, two = sorted((root(whole(row.image)), root(whole(other))))
            parent[two] = one
    groups = sorted({root(whole(name)) for name in data.names()}, key=_shuffled)
    aside = set(groups[: max(2, round(len(groups) / every))])
    if len(groups) < 6:
        raise DataError(
            f"expected at least 6 different pictures, 2 of them to tell by; got {len(groups)}. Add "
            "captioned pictures"
        )

    def wanted(name: str, held: bool) -> bool:
        if root(whole(name)) in aside:
            return held and name == whole(name)
        return not held

    def part(held: bool) -> CaptionedPictures:
        return replace(
            data,
            matching=_where(data.matching, lambda name: wanted(name, held)),
            grounding=_where(data.grounding, lambda name: wanted(name, held)),
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


def whole(name: str) -> str:
    """The picture that a view is of; the name itself where it is none."""
    return name.partition(VIEW)[0]


def _where(rows: Sequence, wanted: Callable[[str], bool]) -> tuple:
    return tuple(row for row in rows if wanted(row.image))


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
