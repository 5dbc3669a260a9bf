"""Referring expressions in MDETR's COCO-like JSON, e.g. `finetune_refcoco_train.json`.

`images` has an entry for each expression: `id`, `file_name`, `caption` and, if known, `width` and
`height`. `annotations` has the boxes: `image_id` (of that entry), `bbox` [x, y, w, h] in pixels,
and `tokens_positive`, the character spans [start, end] of the caption that name the box.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from .datasets import GroundingDataset, GroundingRow, Spans
from .examples import DataError
from .images import ImageFolder
from .lines import numbers_field, require_file, shorten, text_field

logger = logging.getLogger(__name__)

_Found = dict[Any, list[tuple[tuple[float, ...], Any, str]]]
"""Boxes, raw spans and places of annotations, by image id."""


class RefCoco(GroundingDataset):
    """Grounding examples from MDETR's referring expressions.

    As published: crowd annotations (`iscrowd`) are left out, boxes are cut off at the image's
    border, and those without area there are left out. Unlike published, so are expressions that
    no box is left of: they would teach that their words name nothing; a warning counts them.
    The published training neither crops nor flips: images become squares by resizing alone
    (:class:`~.images.ImageFolder`). The whole file is checked when it is opened.

    Args:
        path: the JSON file.
        images: folder that file names are relative to (published: COCO's `train2014`).
        size: side of the square images in pixels.
        seed: see :class:`GroundingDataset`; matters only for precomputed latents.

    Raises:
        DataError: no file, not such JSON, or an entry that is not as described above.
    """

    def __init__(self, path: str | Path, images: str | Path, size: int, seed: int = 0) -> None:
        path = Path(path)
        content = _load(path)
        found = _annotations(content["annotations"], path)
        rows = [
            _row(entry, found, where)
            for entry, where in _entries(content["images"], "images", path)
        ]
        if found:
            _, _, where = next(iter(found.values()))[0]
            raise DataError(
                f'{where}: expected an "image_id" that "images" has; got '
                f"{shorten(next(iter(found)))}. Add the image, or remove the annotation"
            )
        self._rows = [row for row in rows if row.boxes]
        if not self._rows:
            raise DataError(f"{path}: expected at least one caption with a box; got none")
        if left_out := len(rows) - len(self._rows):
            logger.warning("%s: %d captions without a box are left out", path, left_out)
        self.images = ImageFolder(images, size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> GroundingRow:
        return self._rows[index]


def _load(path: Path) -> dict[str, list]:
    require_file(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # broken, not UTF-8, nested too deep, …
        line = getattr(error, "lineno", 1)
        raise DataError(
            f"{path}:{line}: expected one JSON document; got something else ({error}). Download "
            "it again; a file with one object a line is read by JsonlGrounding"
        ) from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            got = sorted(content) if isinstance(content, dict) else content
            raise DataError(
                f'{path}: expected an object with the lists "images" and "annotations"; got '
                f'{shorten(got)}, without "{key}". Use MDETR\'s files, such as '
                "finetune_refcoco_train.json"
            )
    return content


def _entries(entries: list, key: str, path: Path) -> list[tuple[dict[str, Any], str]]:
    """Entries of a list with the place that messages name."""
    placed = [(entry, f"{path}: {key}[{number}]") for number, entry in enumerate(entries)]
    for entry, where in placed:
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object; got {shorten(entry)}. Remove it")
    return placed


def _annotations(entries: list, path: Path) -> _Found:
    found: _Found = defaultdict(list)
    for entry, where in _entries(entries, "annotations", path):
        if entry.get("iscrowd"):
            continue
        image = entry.get("image_id")
        if not isinstance(image, (int, str)):
            raise DataError(
                f'{where}: expected an "image_id", the "id" of an entry of "images"; got '
                f"{shorten(image)}. Add it"
            )
        box = numbers_field(entry.get("bbox"), "bbox", "[x, y, w, h]", where)
        spans = entry.get("tokens", entry.get("tokens_positive"))
        found[image].append((box, spans, where))
    return found


def _row(entry: dict[str, Any], found: _Found, where: str) -> GroundingRow:
    """The row of an entry of `images`; takes its annotations out of `found`."""
    caption = text_field(entry, "caption", where)
    name = text_field(entry, "file_name", where)
    size = None
    if "width" in entry and "height" in entry:
        width, height = (entry["width"], entry["height"])
        size = tuple(
            int(side) for side in numbers_field([width, height], "size", "[width, height]", where)
        )
    boxes, spans = [], []
    identity = entry.get("id")
    if not isinstance(identity, (int, str, type(None))):
        raise DataError(
            f'{where}: "id" must be a number or a text; got {shorten(identity)}. Correct it'
        )
    for box, raw, inside in found.pop(identity, ()):
        if _has_area(box, size):
            boxes.append(box)
            spans.append(_spans(raw, caption, inside))
    return GroundingRow(name, caption, tuple(boxes), tuple(spans), where, size)


def _has_area(box: tuple[float, ...], size: tuple[int, int] | None) -> bool:
    """Whether a box (x, y, w, h) covers some of its image."""
    width, height = size or (float("inf"), float("inf"))
    x, y, w, h = box
    return min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)


def _spans(value: Any, caption: str, where: str) -> Spans:
    """Checked spans; an end beyond the caption, which the published reader bears, is cut back."""
    spans = tuple(
        (span[0], min(span[1], len(caption)))
        for span in (value if isinstance(value, list) else [])
        if isinstance(span, list)
        and len(span) == 2
        and all(isinstance(end, int) for end in span)
        and 0 <= span[0] < min(span[1], len(caption))
    )
    if not spans or len(spans) != len(value):
        raise DataError(
            f'{where}: "tokens_positive" must list character spans [start, end] within the '
            f"caption {shorten(caption)} of {len(caption)} characters; got {shorten(value)}. "
            f"Where the whole caption names the box, write [[0, {len(caption)}]]"
        )
    return spans
