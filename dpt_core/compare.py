"""Batches of pictures above each other, with what is right and wrong in them, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .verdicts import Part, Verdict, headline, improved, mean_score, share

WIDTH = 1400
"""Of the whole picture in pixels, where cells are neither at their least nor their largest."""
SMALLEST, LARGEST = 200, 640
"""Side of a cell in pixels: small pictures are enlarged."""
IN_A_LINE = 6
"""Pictures side by side; more of them begin another line."""


@dataclass(frozen=True)
class Theme:
    """Colours."""

    paper: str
    ink: str
    faint: str
    right: str
    wrong: str


THEMES = {
    "dark": Theme("#202024", "#f2f2f2", "#9a9aa2", "#3ddc84", "#ff6b62"),
    "light": Theme("#ffffff", "#1a1a1e", "#6a6a72", "#12833f", "#c8261c"),
}


@dataclass(frozen=True)
class Batch:
    """One row of a comparison.

    Attributes:
        label: what the pictures have in common: `plain`.
        pictures: `[H, W, 3]` uint8 each; sizes may differ.
        verdicts: one per picture, or none at all.
        names: a word or two above each picture, or none.
        badges: a few letters in each picture's corner, or none.
    """

    label: str
    pictures: Sequence[np.ndarray]
    verdicts: Sequence[Verdict] = ()
    names: Sequence[str] = ()
    badges: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not len(self.pictures):
            raise ValueError(f"batch {self.label!r} has no picture: wire at least one")
        for kind in ("verdicts", "names", "badges"):
            if len(given := getattr(self, kind)) not in (0, len(self.pictures)):
                raise ValueError(
                    f"batch {self.label!r} has {len(self.pictures)} pictures and {len(given)} "
                    f"{kind}: expected one for each picture"
                )


def compare(batches: Sequence[Batch], title: str = "", theme: str = "dark") -> np.ndarray:
    """Draw batches above each other: a frame, marks and the score for every picture.

    Args:
        batches: from the top; each begins a line of its own.
        title: what all pictures should show, above them; left out where the font cannot write it.
        theme: one of :data:`THEMES`.

    Returns:
        `[H, W, 3]` uint8.

    Raises:
        ValueError: no batch, or no such theme.
    """
    if not batches:
        raise ValueError("there is nothing to compare: wire at least one batch of images")
    if theme not in THEMES:
        raise ValueError(f"theme must be one of {', '.join(THEMES)}; got {theme!r}")
    from PIL import Image, ImageDraw

    # Drawn twice: what comes out is as high as what was drawn the first time.
    sheet = _Sheet(ImageDraw.Draw(Image.new("RGB", (1, 1))), batches, THEMES[theme])
    size = (sheet.width, sheet.fill(batches, title))
    image = Image.new("RGB", size, THEMES[theme].paper)
    _Sheet(ImageDraw.Draw(image), batches, THEMES[theme], image).fill(batches, title)
    return np.asarray(image)


class _Sheet:
    """A page that is filled from the top. Without an image nothing is pasted: it measures."""

    def __init__(self, draw: Any, batches: Sequence[Batch], theme: Theme, image: Any = None):
        self.draw, self.image, self.theme = draw, image, theme
        self.columns = min(IN_A_LINE, max(len(batch.pictures) for batch in batches))
        self.side = max(SMALLEST, min(WIDTH // self.columns, LARGEST))
        self.gap = self.side // 16
        self.width = self.columns * (self.side + self.gap) + self.gap
        # The fewer the cells, the less the picture shrinks in its place on the screen.
        self.large, self.small = _font(self.width // 38, bold=True), _font(self.width // 52)
        ratios = [p.shape[0] / p.shape[1] for batch in batches for p in batch.pictures]
        self.height = round(self.side * min(max(ratios), 1.5))
        self.y = self.gap

    def fill(self, batches: Sequence[Batch], title: str) -> int:
        """Draw everything; the height that it took."""
        if _can_write(title, self.large):
            self.paragraph(title, self.large, self.theme.ink)
        if line := headline([batch.verdicts for batch in batches]):
            first, last = batches[0].verdicts, batches[-1].verdicts
            rose = improved(first, last)
            self.paragraph(line, self.large, self.theme.right if rose else self.theme.ink)
        for batch in batches:
            self.batch(batch)
        return self.y

    def batch(self, batch: Batch) -> None:
        alone = len(batch.pictures) == 1 and not batch.label
        about = [] if alone else [share(batch.verdicts)]
        if (mean := mean_score(batch.verdicts)) is not None and len(batch.pictures) > 1:
            about.append(f"mean {mean:.2f}")
        if line := ": ".join(filter(None, [batch.label, ", ".join(filter(None, about))])):
            self.y += self.gap // 2
            self.paragraph(line, self.large, self.theme.ink)
        for start in range(0, len(batch.pictures), self.columns):
            self.line(batch, range(start, min(start + self.columns, len(batch.pictures))))

    def line(self, batch: Batch, places: Sequence[int]) -> None:
        """Pictures side by side, with their names above and their marks below."""
        top, ends = self.y, []
        for column, place in enumerate(places):
            x = self.gap + column * (self.side + self.gap)
            self.y = top
            if batch.names:
                name = batch.names[place]
                while name and self.draw.textlength(name, self.small) > self.side:
                    name = name[:-1]
                self.draw.text(
                    (x, self.y), _written(name, self.small), self.theme.faint, self.small
                )
                self.y += round(self.small.size * 1.4)
            verdict = batch.verdicts[place] if batch.verdicts else Verdict()
            badge = batch.badges[place] if batch.badges else ""
            self.picture(batch.pictures[place], x, verdict.held, badge)
            for part in _captions(verdict):
                self.caption(part, x)
            if verdict.parts and verdict.score is not None:  # the number second
                score = f"score {_number(verdict)}"
                self.paragraph(score, self.small, self.theme.faint, x, self.side)
            ends.append(self.y)
        self.y = max(ends) + self.gap // 2

    def picture(self, picture: np.ndarray, x: int, held: bool | None, badge: str) -> None:
        """A framed picture, as large as its cell allows, with a badge in its corner."""
        line = max(4, self.side // 50)
        room = (self.side - 2 * line, self.height - 2 * line)
        scale = min(room[0] / picture.shape[1], room[1] / picture.shape[0])
        width, height = (max(1, round(length * scale)) for length in picture.shape[1::-1])
        left = x + (self.side - width) // 2
        top = self.y + line + room[1] - height  # stands on its captions
        if self.image is not None:
            from PIL import Image

            shown = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
            self.image.paste(shown, (left, top))
        box = (left - line, top - line, left + width + line - 1, top + height + line - 1)
        self.draw.rectangle(box, outline=self.colour(held), width=line)
        if badge:
            edge = self.small.size * 1.6
            wide = max(edge, self.draw.textlength(badge, self.small) + edge / 2)
            spot = (box[0], box[1], box[0] + wide, box[1] + edge)
            self.draw.rectangle(spot, fill=self.colour(held))
            middle = ((spot[0] + spot[2]) / 2, (spot[1] + spot[3]) / 2)
            self.draw.text(middle, badge, self.theme.paper, self.small, anchor="mm")
        self.y += self.height + self.gap // 4

    def caption(self, part: Part, x: int) -> None:
        """A line below a picture: a mark, then words."""
        size = self.small.size
        colour, middle = self.colour(part.held), self.y + size * 0.68
        pen = max(2, size // 7)
        # Drawn, not written: Pillow's own font has no such characters.
        if part.held is None:
            self.draw.line([(x, middle), (x + size * 0.7, middle)], colour, pen)
        elif part.held:
            way = [(0, 0), (0.28, 0.3), (0.8, -0.4)]
            self.draw.line(
                [(x + size * u, middle + size * v) for u, v in way], colour, pen, "curve"
            )
        else:
            for v in (-0.35, 0.35):
                ends = [(x, middle - size * v), (x + size * 0.7, middle + size * v)]
                self.draw.line(ends, colour, pen)
        self.paragraph(part.text, self.small, colour, x + size * 1.1, self.side - size * 1.1)

    def paragraph(self, text: str, font: Any, colour: str, x: float = 0, width: float = 0) -> None:
        """Words from the left, over as many lines as they need."""
        x, width = x or self.gap, width or self.width - 2 * self.gap
        for line in _wrapped(_written(text, font), font, width, self.draw):
            self.draw.text((x, self.y), line, colour, font)
            self.y += round(font.size * 1.3)

    def colour(self, held: bool | None) -> str:
        if held is None:
            return self.theme.faint
        return self.theme.right if held else self.theme.wrong


def _captions(verdict: Verdict) -> list[Part]:
    """What stands below a picture with a mark: its parts, or else its score."""
    if verdict.parts or verdict.score is None:
        return list(verdict.parts)
    return [Part(_number(verdict), verdict.held)]


def _number(verdict: Verdict) -> str:
    gain = "" if verdict.gain is None else f" ({verdict.gain:+.2f})"
    return f"{verdict.score:.2f}{gain}"


def _wrapped(text: str, font: Any, width: float, draw: Any) -> list[str]:
    """Text in lines no wider than the width, broken between words where that is possible."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and draw.textlength(lines[-1] + letter, font) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


@lru_cache
def _font(size: int, bold: bool = False) -> Any:
    """matplotlib's font, which writes Latin, Greek and Cyrillic; else Pillow's own."""
    from PIL import ImageFont

    try:
        from matplotlib import get_data_path

        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def _lacks(font: Any, letter: str) -> bool:
    """Whether a font draws its box for unknown characters."""
    return not letter.isspace() and bytes(font.getmask(letter)) == bytes(font.getmask("\uffff"))


def _can_write(text: str, font: Any) -> bool:
    return bool(text.strip()) and not any(_lacks(font, letter) for letter in set(text))


def _written(text: str, font: Any) -> str:
    """Text without what a font cannot write; an arrow becomes one of two letters."""
    if _lacks(font, "→"):
        text = text.replace("→", "->")
    return "".join("?" if _lacks(font, letter) else letter for letter in text)
