"""How pictures are laid out in a thumbnail."""

from __future__ import annotations

import pytest
from PIL import Image
from thumbnails import BACKGROUND, SIZE, compose, lines_of


def picture(width: int = 128, height: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (255, 0, 0))


def test_lines():
    shown = [("eight", [picture()] * 8), ("one", [picture()]), ("two", [picture()])]
    assert [[title for title, _ in line] for line in lines_of(shown)] == [
        ["eight", "", "", ""], ["", "", "", ""], ["one", "two"],
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [[4, 4, 1], [8, 2], [1, 1, 1], [1]])
def test_nothing_is_cut(counts):
    """The border stays empty, and there are as many red places as there are pictures."""
    shown = [(f"title {n}", [picture(300, 200) if n == 1 else picture()] * n) for n in counts]
    square = compose(lines_of(shown))
    assert square.size == (SIZE, SIZE)
    edges = [square.crop(box) for box in ((0, 0, SIZE, 2), (0, SIZE - 2, SIZE, SIZE),
                                          (0, 0, 2, SIZE), (SIZE - 2, 0, SIZE, SIZE))]  # fmt: skip
    assert {color for edge in edges for _, color in edge.getcolors()} == {BACKGROUND}
    red = square.getchannel("R").point(lambda value: 255 * (value > 250)).tobytes().count(b"\xff")
    assert red > SIZE * SIZE / 5
