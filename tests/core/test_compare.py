"""Comparisons: what counts as right, and what is drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import ImageColor

from dpt_core.compare import IN_A_LINE, LARGEST, SMALLEST, THEMES, Batch, compare
from dpt_core.verdicts import (
    Part,
    Verdict,
    by_first,
    by_parts,
    by_threshold,
    headline,
    improved,
    share,
)

PLAIN, CORRECTED = (0.69, 0.30, 0.34, 0.51), (0.69, 0.71, 0.61, 0.67)
COLOUR = (17, 34, 51)


def pictures(count: int = 4, height: int = 64, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), COLOUR, np.uint8) for _ in range(count)]


def pixels(sheet: np.ndarray, colour: str | tuple) -> np.ndarray:
    """Where a sheet has a colour, `[H, W]` bool."""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return (sheet == np.array(wanted, np.uint8)).all(-1)


def test_headline_of_scores():
    plain, corrected = by_threshold(PLAIN, 0.6), by_threshold(CORRECTED, 0.6)
    assert headline([plain, corrected]) == "1 of 4 → 4 of 4, mean score 0.46 → 0.67"
    assert improved(plain, corrected) and not improved(corrected, plain)
    assert headline([plain]) == ""


def test_better_or_worse_than_the_first():
    first = by_first(PLAIN, PLAIN)
    verdicts = by_first((0.7, 0.2, 0.34, 0.6, 0.9), PLAIN)
    assert [verdict.held for verdict in verdicts] == [True, False, None, True, None]
    assert share(first) == "" and share(verdicts) == "2 of 5 better"
    assert headline([first, verdicts]) == "2 of 5 better, mean score 0.46 → 0.55"


def test_parts():
    said = [
        [{"text": "a green cross", "held": True}, {"text": "right of", "held": False}],
        {"parts": [{"part": "a green cross", "held": True}, {"part": "x", "held": None}]},
        [{"text": "two of them", "held": None}],
    ]
    verdicts = by_parts(json.dumps(said))
    assert [verdict.held for verdict in verdicts] == [False, True, None]
    assert verdicts[0].parts == (Part("a green cross", True), Part("right of", False))
    assert share(verdicts) == "1 of 3"


def test_a_phrase_is_a_line():
    """Its first failure, or the prompt's own words; the verdict counts every part."""
    prompt = "a blue square right of a cross"

    def part(text, held, phrase, *span):
        return {"text": text, "held": held, "phrase": phrase, "span": span}

    def told(square, colour, cross):
        parts = [
            part("square" if square else "no square", square, 0, 7, 13),
            part("blue square" if colour else "not blue", colour, 0, 2, 13),
            part("cross", cross, 1, 25, 30),
            part("right of", None, None, 14, 22),
        ]
        return by_parts(json.dumps([{"prompt": prompt, "parts": parts}]))[0]

    assert told(True, True, True).parts == (
        Part("blue square", True), Part("cross", True), Part("right of", None),
    )  # fmt: skip
    assert told(False, False, True).parts[0] == Part("no square", False)
    assert told(True, False, None).parts[:2] == (Part("not blue", False), Part("cross", None))
    assert [told(*each).held for each in ((True,) * 3, (True, False, None))] == [True, False]


@pytest.mark.parametrize(
    "text", ["", "{", "3", '{"a": 1}', "[1]", '[[{"text": "x"}]]', '[[{"held": true}]]',
             '[[{"text": "x", "held": "yes"}]]', "[" * 100_000]
)  # fmt: skip
def test_text_that_is_no_explanation(text):
    with pytest.raises(ValueError, match="expected the JSON of DPT Explain"):
        by_parts(text)


@pytest.mark.parametrize("theme", THEMES)
def test_frames_tell_right_from_wrong(theme):
    """Both colours stand in the upper row of pictures, one alone in the lower one."""
    rows = [Batch("plain", pictures(), by_threshold(PLAIN, 0.6)),
            Batch("DPT", pictures(), by_threshold(CORRECTED, 0.6))]  # fmt: skip
    sheet = compare(rows, "a blue square", theme)
    middle = np.flatnonzero(~pixels(sheet, COLOUR).any(1) & pixels(sheet, COLOUR).cumsum(0).any(1))
    upper, lower = sheet[: middle[0]], sheet[middle[0] + 100 :]
    right, wrong = THEMES[theme].right, THEMES[theme].wrong
    assert pixels(upper, right).sum() > 1000 and pixels(upper, wrong).sum() > 3000
    assert pixels(lower, right).sum() > 4000 and pixels(lower, wrong).sum() == 0


@pytest.mark.parametrize(("count", "side"), [(1, LARGEST), (4, 350), (6, 233), (8, 233)])
def test_small_pictures_are_enlarged(count, side):
    """Pictures fill their cells, but for the frame; more than fit begin another line."""
    sheet = compare([Batch("all", pictures(count, 16, 16))])
    shown = pixels(sheet, COLOUR)
    line = max(4, side // 50)
    lines = -(-count // IN_A_LINE)
    assert shown.any(1).sum() == lines * (side - 2 * line)
    assert shown.any(0).sum() == min(count, IN_A_LINE) * (side - 2 * line)
    assert side >= SMALLEST


def test_pictures_of_any_shape():
    mixed = [*pictures(1, 100, 300), *pictures(1, 300, 100), *pictures(1, 1, 1)]
    sheet = compare([Batch("mixed", mixed, [Verdict(), Verdict(True), Verdict(False)])])
    assert pixels(sheet, COLOUR).any()


def test_verdicts_are_never_cut_short():
    """However long a part's words are, the sheet grows until they fit."""
    words = "a blue square to the right of a green cross above a small red circle " * 3
    heights = [
        compare([Batch("a", pictures(), [Verdict(False, (Part(text, False),))] * 4)]).shape[0]
        for text in ("short", words)
    ]
    assert heights[1] > heights[0] + 200


def test_titles_in_other_scripts():
    """Latin, Greek and Cyrillic are written; a title that would be boxes is left out."""
    none, written, other = (
        compare([Batch("a", pictures())], title).shape[0]
        for title in ("", "ein größeres Quadrat, квадрат", "蓝色方块")
    )
    assert written > none and other == none


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compare([]), "wire at least one batch"),
        (lambda: compare([Batch("a", pictures())], theme="pink"), "dark, light; got 'pink'"),
        (lambda: Batch("a", []), "has no picture"),
        (lambda: Batch("a", pictures(2), [Verdict()] * 3), "2 pictures and 3 verdicts"),
    ],
)
def test_what_cannot_be_compared(make, message):
    with pytest.raises(ValueError, match=message):
        make()
