"""Captioned pictures from a folder, as trainers keep them, or from lists.

A folder holds `captions.jsonl` (:mod:`.jsonl`), or pictures with a `.txt` of the same name beside
each; its subfolders may be named `10_anything`, after the number of times that theirs count.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torchvision.transforms import v2

from .datasets import GroundingRow, MatchingRow
from .examples import DataError
from .images import ImageFolder, Picture
from .jsonl import JsonlGrounding, JsonlMatching
from .rows import CaptionedPictures, by_phrase

JSONL = "captions.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_folder(folder: str | Path, size: int) -> CaptionedPictures:
    """Read a folder of captioned pictures.

    Args:
        folder: as above.
        size: side of the squares that pictures become, in pixels, a multiple of 8.

    Raises:
        DataError: no folder, no captioned picture in it, or a line that cannot be used.
    """
    folder = Path(folder)
    path, images = folder / JSONL, ImageFolder(folder, size)
    if not path.is_file():
        rows = tuple(_beside(folder))
        if not rows:
            raise DataError(
                f"{folder}: expected pictures ({', '.join(SUFFIXES)}) with a .txt of the same name "
                f"beside each, or {JSONL}; found no captioned picture. Add captions"
            )
        return CaptionedPictures(rows, (), images)
    matching = JsonlMatching(path, size)
    try:
        boxed = JsonlGrounding(path, size)
    except DataError:  # no line with boxes; the others were read above
        boxed = ()
    grounding = by_phrase(boxed.row(index) for index in range(len(boxed)))
    rows = tuple(matching.row(index) for index in range(len(matching)))
    return CaptionedPictures(rows, tuple(grounding), images)


def _beside(folder: Path) -> Iterator[MatchingRow]:
    """Pictures with a caption in a file of the same name, each as often as its folder says."""
    places = [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]
    for place in places:
        number = place.name.split("_")[0]
        times = int(number) if place != folder and number.isascii() and number.isdigit() else 1
        for path in sorted(place.iterdir()):
            text = path.with_suffix(".txt")
            if path.suffix.lower() not in SUFFIXES or not text.is_file():
                continue
            try:
                caption = " ".join(text.read_text("utf-8").split())
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{text}: expected a caption in UTF-8; it cannot be read ({error}). Save it "
                    "again as UTF-8"
                ) from error
            if caption:
                name = path.relative_to(folder).as_posix()
                yield from [MatchingRow(name, caption, (), (), str(text))] * times


class ListedPictures:
    """Pictures in memory as squares (a :class:`~.images.PictureSource`).

    Args:
        pictures: `[H, W, 3]` each, in [0, 1], of any sizes.
        size: side of the squares in pixels, a multiple of 8.
    """

    folder = Path()

    def __init__(self, pictures: Sequence[torch.Tensor], size: int) -> None:
        self._pictures, self.size = pictures, size
        self._resize = v2.Resize((size, size), v2.InterpolationMode.BILINEAR, antialias=True)

    def __call__(self, name: str, where: str, rng: random.Random | None = None) -> Picture:
        picture = self._pictures[int(name)]
        height, width = picture.shape[:2]
        square = self._resize(rearrange(picture.cpu().float(), "h w c -> c h w"))
        return Picture(square * 2 - 1, width, height)

    def bytes_of(self, name: str, where: str) -> int:
        """A number that tells pictures apart: the sum of its bytes."""
        return int((self._pictures[int(name)].double() * 255).round().sum())


def from_lists(
    pictures: Sequence[torch.Tensor],
    captions: Sequence[str],
    boxes: Sequence[Sequence[Mapping[str, Any]]] | None,
    size: int,
) -> CaptionedPictures:
    """Captioned pictures that other programs give.

    Args:
        pictures: `[H, W, 3]` each, in [0, 1].
        captions: one for each.
        boxes: for each picture its boxes, `{x, y, width, height}` in pixels, with the phrase as
            `label`; one without a label is named by the caption. None for no boxes.
        size: side of the squares in pixels.

    Raises:
        DataError: the lists are of different lengths, or a box is none.
    """
    if len(captions) != len(pictures) or (boxes is not None and len(boxes) != len(pictures)):
        counts = f"{len(pictures)} images, {len(captions)} captions"
        counts += "" if boxes is None else f" and boxes of {len(boxes)} images"
        raise DataError(f"expected a caption for each image, and its boxes if any; got {counts}")
    matching, grounding = [], []
    for index, caption in enumerate(captions):
        where, name = f"image {index + 1}", str(index)
        if not isinstance(caption, str) or not caption.strip():
            raise DataError(f"{where}: expected a caption; got {caption!r}. Write one, or drop it")
        matching.append(MatchingRow(name, caption.strip(), (), (), where))
        grounding += _grounding(name, caption.strip(), boxes[index] if boxes else (), where)
    return CaptionedPictures(tuple(matching), tuple(grounding), ListedPictures(pictures, size))


def _grounding(
    name: str, caption: str, boxes: Sequence[Mapping[str, Any]], where: str
) -> list[GroundingRow]:
    named: dict[str, list[tuple[float, ...]]] = {}
    for box in boxes:
        sides, label = box_of(box, where)
        if min(sides[2:]) > 0:
            named.setdefault(label or caption, []).append(sides)
    return [
        GroundingRow(name, words, tuple(each), (((0, len(words)),),) * len(each), where)
        for words, each in named.items()
    ]


def box_of(box: Mapping[str, Any], where: str) -> tuple[tuple[float, ...], str]:
    """A detector's box: (x, y, width, height) in pixels, and its label, "" where it has none.

    Raises:
        DataError: it is none.
    """
    try:
        sides = tuple(float(box[key]) for key in ("x", "y", "width", "height"))
        if not all(map(math.isfinite, sides)):
            raise ValueError("not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected boxes with x, y, width and height in pixels; got {box!r}. Wire "
            "the BOUNDING_BOX output of a detector"
        ) from error
    more = box.get("metadata")
    label = box.get("label") or (more.get("label") if isinstance(more, Mapping) else None)
    return sides, str(label or "")
