"""An image folder with captions and boxes: a JSONL file, one JSON object a line.

    {"image": "a.png", "caption": "A red cube left of a ball",
     "negative": "A ball left of a red cube", "negative_image": "b.png",
     "boxes": [{"phrase": "a red cube", "box": [10, 20, 30, 40]}]}

(on one line). `image` and `caption` must be there. `negative`, a text that looks like the caption
but does not hold, and `negative_image`, an image that looks like the image but that the caption
does not fit, are optional, as are `boxes`: [x, y, w, h] in pixels from the upper left corner, each
with the phrase of the caption that names it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .datasets import GroundingDataset, GroundingRow, MatchingDataset, MatchingRow, Spans
from .examples import DataError
from .images import ImageFolder
from .lines import RecordIndex, location, numbers_field, read_lines, shorten, text_field

logger = logging.getLogger(__name__)

KEYS = ("image", "caption", "negative", "negative_image", "boxes")


class _Record(NamedTuple):
    """One line, checked."""

    image: str
    caption: str
    negative: str | None
    negative_image: str | None
    boxes: tuple[tuple[float, ...], ...]
    spans: tuple[Spans, ...]
    unknown: frozenset[str]


class JsonlMatching(MatchingDataset):
    """Image-text matching examples from a JSONL file.

    A line without `negative` takes the caption of another random line in its place, one without
    `negative_image` the image of another random line (:class:`MatchingDataset`). Every line is
    checked when the file is opened, the images when they are read.

    Args:
        path: the JSONL file, UTF-8.
        size: side of the square images in pixels.
        images: folder that image names are relative to; the file's own folder if not given.
        seed: see :class:`MatchingDataset`.

    Raises:
        DataError: no file, no line, or a line that is not as described above.
    """

    def __init__(
        self, path: str | Path, size: int, images: str | Path | None = None, seed: int = 0
    ) -> None:
        path = Path(path)
        self._records = _index(path, lambda record: True, "line")
        self.images = ImageFolder(images or path.parent, size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def row(self, index: int) -> MatchingRow:
        where = self._records.where(index)
        record = _parse(self._records.read(index), where)
        return MatchingRow(
            record.image,
            record.caption,
            (record.negative_image,) if record.negative_image else (),
            (record.negative,) if record.negative else (),
            where,
        )


class JsonlGrounding(GroundingDataset):
    """Grounding examples from the lines of a JSONL file that have boxes.

    A phrase is looked for in the caption as whole words, in upper or lower case. The k-th box with
    the same phrase takes the k-th place where it stands; further boxes share the last place, so
    "two dogs" with two boxes is one phrase for both.

    Args:
        path: the JSONL file, UTF-8.
        size: side of the square images in pixels.
        images: folder that image names are relative to; the file's own folder if not given.
        seed: see :class:`GroundingDataset`; matters only for precomputed latents.

    Raises:
        DataError: no file, no line with boxes, or a line that is not as described above.
    """

    overhang = 0.01  # more is rather a mistake: [x0, y0, x1, y1], or boxes of another image

    def __init__(
        self, path: str | Path, size: int, images: str | Path | None = None, seed: int = 0
    ) -> None:
        path = Path(path)
        self._records = _index(path, lambda record: bool(record.boxes), 'line with "boxes"')
        self.images = ImageFolder(images or path.parent, size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def row(self, index: int) -> GroundingRow:
        where = self._records.where(index)
        record = _parse(self._records.read(index), where)
        return GroundingRow(record.image, record.caption, record.boxes, record.spans, where)


def _index(path: Path, wanted: Callable[[_Record], bool], what: str) -> RecordIndex:
    """Check every line and note where the wanted ones are."""
    index, unknown = RecordIndex(path), set()
    for line in read_lines(path):
        if line.text.strip():
            record = _parse(line.text, location(path, line.number))
            unknown |= record.unknown
            if wanted(record):
                index.add(line.start, line.length, line.number)
    if not len(index):
        raise DataError(f"{path}: expected at least one {what}; got none. Add some")
    if unknown:
        logger.warning("%s: not used: %s (used: %s)", path, sorted(unknown), ", ".join(KEYS))
    return index


def _parse(text: str, where: str) -> _Record:
    """Check a line."""
    try:
        entry = json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected one JSON object on the line; got something else at column "
            f"{error.colno} ({error.msg}). Correct it, or write the file with json.dumps"
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{where}: expected one JSON object on the line; it is nested too deep, or has a "
            f"number of too many digits ({type(error).__name__}). Correct it"
        ) from None
    if not isinstance(entry, dict):
        raise DataError(
            f'{where}: expected a JSON object {{"image": …, "caption": …}}; got {shorten(entry)}. '
            "Write one object a line"
        )
    optional = {
        key: text_field(entry, key, where) if entry.get(key) is not None else None
        for key in ("negative", "negative_image")
    }
    image, caption = text_field(entry, "image", where), text_field(entry, "caption", where)
    for key, positive in (("negative", caption), ("negative_image", image)):
        if optional[key] == positive:
            raise DataError(
                f'{where}: "{key}" must differ from what it is the negative of; got {positive!r} '
                "for both. Correct or remove it"
            )
    boxes, spans = _boxes(entry.get("boxes"), caption, where)
    unknown = frozenset(entry).difference(KEYS)
    return _Record(image, caption, **optional, boxes=boxes, spans=spans, unknown=unknown)


def _boxes(
    entries: Any, caption: str, where: str
) -> tuple[tuple[tuple[float, ...], ...], tuple[Spans, ...]]:
    """Boxes in pixels, and for each the span of its phrase."""
    if not isinstance(entries, (list, type(None))):
        raise DataError(
            f'{where}: "boxes" must be a list of {{"phrase": …, "box": [x, y, w, h]}}; got '
            f"{shorten(entries)}. Put it in brackets"
        )
    boxes, spans, seen = [], [], {}
    for number, entry in enumerate(entries or []):
        inside = f"{where}: boxes[{number}]"
        if not isinstance(entry, dict):
            raise DataError(
                f'{inside}: expected {{"phrase": …, "box": [x, y, w, h]}}; got {shorten(entry)}. '
                "Name the phrase of each box"
            )
        boxes.append(_box(entry, inside))
        phrase = text_field(entry, "phrase", inside).strip()
        places = _places(phrase, caption, inside)
        count = seen[phrase.lower()] = seen.get(phrase.lower(), -1) + 1
        spans.append((places[min(count, len(places) - 1)],))
    return tuple(boxes), tuple(spans)


def _box(entry: dict[str, Any], where: str) -> tuple[float, ...]:
    box = numbers_field(entry.get("box"), "box", "[x, y, w, h]", where)
    if box[2] <= 0 or box[3] <= 0:
        raise DataError(
            f'{where}: "box" must be [x, y, w, h] with w and h above 0; got {list(box)}. Correct '
            "or remove it"
        )
    return box


def _places(phrase: str, caption: str, where: str) -> list[tuple[int, int]]:
    """Where a phrase stands in a caption, at least one place."""
    pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    places = [match.span() for match in re.finditer(pattern, caption, re.IGNORECASE)]
    if not places:
        raise DataError(
            f"{where}: expected a phrase that stands in the caption {caption!r}; got {phrase!r}. "
            "Copy the words that name the box from the caption"
        )
    return places
