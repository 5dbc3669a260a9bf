"""What is said of a picture: its prompt's parts, each with ✓ or ✗, as data, mask and drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .annotation import mark_boxes
from .compare import Batch, compare
from .phrases import Span, take_apart
from .verdicts import Part as Mark
from .verdicts import Verdict

MARGIN = 0.1
"""Share of a box by which it grows on each side before it is repainted, or kept."""

Box = tuple[float, ...]


@dataclass(frozen=True)
class Checked:
    """A part of a prompt in one picture.

    Attributes:
        kind: thing, attribute, count, relation, or rest: what is not taken apart.
        text: the part in words, with what is there instead where it does not hold.
        span: where it stands in the prompt.
        phrase: place of the phrase that it belongs to, or None.
        held: whether the picture shows it; None where that cannot be told.
        confidence: how surely the picture shows it, in [0, 1], 0.5 being undecided; None where that
            cannot be told. It ranks pictures; it is no probability.
        boxes: where, corners (x0, y0, x1, y1) in pixels.
    """

    kind: str
    text: str
    span: Span
    phrase: int | None = None
    held: bool | None = None
    confidence: float | None = None
    boxes: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Explanation:
    """The parts of a prompt in one picture.

    Attributes:
        prompt: the prompt.
        parts: in the order of the phrases, then relations, then what is not taken apart.
    """

    prompt: str
    parts: tuple[Checked, ...]

    @property
    def known(self) -> list[bool]:
        """Of each part that can be told, whether it holds."""
        return [part.held for part in self.parts if part.held is not None]

    @property
    def share(self) -> float:
        """The share of parts that hold, of those that can be told; 1 where none can."""
        return sum(self.known) / len(self.known) if self.known else 1.0

    @property
    def held(self) -> bool | None:
        """Whether all parts hold that can be told; None where none can."""
        return all(self.known) if self.known else None

    @property
    def failed(self) -> tuple[str, ...]:
        """What fails, as it stands in the prompt: phrases, and relations with both their ends."""
        spans = dict.fromkeys(
            _whole(self.prompt, part) for part in self.parts if part.held is False
        )
        return tuple(self.prompt[span.start : span.end] for span in spans)

    @property
    def verdict(self) -> Verdict:
        """As DPT Compare shows it. That there is one thing where one is wanted goes unsaid."""
        said = (
            Mark(part.text, part.held)
            for part in self.parts
            if not (part.kind == "count" and part.held and part.text.startswith("1 "))
        )
        return Verdict(self.held, tuple(said))

    def as_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        parts = [
            {
                "text": part.text, "kind": part.kind, "held": part.held,
                "confidence": None if part.confidence is None else round(part.confidence, 4),
                "span": list(part.span), "phrase": part.phrase,
                "boxes": [[round(each, 1) for each in box] for box in part.boxes],
            }
            for part in self.parts
        ]  # fmt: skip
        return {"prompt": self.prompt, "held": self.held, "share": self.share, "parts": parts}


def _whole(prompt: str, part: Checked) -> Span:
    """The phrase or relation that a part is a part of."""
    parts = take_apart(prompt)
    if part.phrase is not None:
        return parts.phrases[part.phrase].span
    for relation in parts.relations:
        if relation.span == part.span:
            spans = [parts.phrases[end].span for end in (relation.subject, relation.object)]
            return Span(min(each.start for each in spans), max(each.end for each in spans))
    return part.span


def failed_mask(explanation: Explanation, height: int, width: int) -> np.ndarray:
    """Where to repaint so that what fails may come to hold.

    Where every failing phrase was found, with a wrong colour or in a wrong number, that is where it
    was found. Where one is nowhere, or a relation fails, there is no such place: then everything is
    repainted but the phrases that hold. Of two things that are there, on the wrong sides, neither
    is kept: where one is, there may be no room beside it.

    Args:
        explanation: of the picture.
        height, width: of the picture.

    Returns:
        `[height, width]` float32, 1 where to repaint; empty where nothing fails.
    """
    parts = [part for part in explanation.parts if part.held is not None]
    failing = [part for part in parts if not part.held]
    phrases = {part.phrase for part in failing}
    boxes = [
        [box for part in parts if part.phrase == place for box in part.boxes] for place in phrases
    ]
    if None not in phrases and all(boxes):
        return _boxes_mask([box for each in boxes for box in each], height, width)
    if not failing:
        return np.zeros((height, width), np.float32)
    moved = {
        end
        for part in failing
        if part.phrase is None and not (ends := _ends_of(explanation.prompt, part)) & phrases
        for end in ends
    }
    again = {None, *phrases, *moved}
    spared = [box for part in parts if part.phrase not in again for box in part.boxes]
    return 1 - _boxes_mask(spared, height, width)


def draw(picture: np.ndarray, explanation: Explanation, theme: str = "dark") -> np.ndarray:
    """A picture with its boxes, enlarged, and the list of its parts below it.

    Args:
        picture: `[H, W, 3]` uint8.
        explanation: of the picture.
        theme: of :data:`dpt_core.compare.THEMES`.

    Returns:
        `[H', W', 3]` uint8.
    """
    marks: dict[Box, tuple[str, bool]] = {}
    for part in explanation.parts:
        if part.held is None or part.phrase is None:
            continue
        for box in part.boxes:
            words, held = marks.get(box, ("", True))
            better = len(part.text) > len(words) and part.kind != "count"
            worse = not part.held and held
            marks[box] = (part.text if worse or (better and held) else words, held and part.held)
    marked = mark_boxes(picture, [(box, words, held) for box, (words, held) in marks.items()])
    return compare([Batch("", [marked], [explanation.verdict])], explanation.prompt, theme)


def _boxes_mask(boxes: list[Box], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in boxes:
        dx, dy = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
        left, top = max(0, round(x0 - dx)), max(0, round(y0 - dy))
        mask[top : max(top + 1, round(y1 + dy)), left : max(left + 1, round(x1 + dx))] = 1
    return mask


def _ends_of(prompt: str, part: Checked) -> set[int]:
    """The phrases that a relation relates."""
    found = (each for each in take_apart(prompt).relations if each.span == part.span)
    return {end for each in found for end in (each.subject, each.object)}
