"""Colours of pixels by name: how much of a part of a picture is red."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HUES = ((15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (255, "blue"),
        (305, "purple"), (345, "pink"), (360, "red"))  # fmt: skip
"""Hue in degrees up to which a colour has a name."""

KIN = {
    "red": {"red", "pink"}, "orange": {"orange", "brown", "yellow"}, "yellow": {"yellow", "orange"},
    "green": {"green", "cyan"}, "blue": {"blue", "cyan"}, "purple": {"purple", "pink"},
    "pink": {"pink", "red", "purple"}, "brown": {"brown", "orange", "red"},
    "black": {"black"}, "white": {"white", "grey"}, "grey": {"grey", "white"},
    "cyan": {"cyan", "blue", "green"},
}  # fmt: skip
"""Colour → names under which its pixels may go in another light."""

KNOWN_AS = {
    "gray": "grey", "silver": "grey", "violet": "purple", "golden": "yellow", "gold": "yellow",
    "tan": "brown", "beige": "brown", "navy": "blue", "teal": "cyan", "turquoise": "cyan",
    "maroon": "red", "crimson": "red", "scarlet": "red", "magenta": "pink", "lavender": "purple",
}  # fmt: skip

INSIDE = 0.5
"""Share of a box, along each axis, whose pixels count: what is around a thing does not."""


def base_colour(words: str) -> str | None:
    """The colour that pixels can be compared with: "light gray" → "grey"; None for others."""
    last = words.split()[-1] if words.split() else ""
    name = KNOWN_AS.get(last, last)
    return name if name in KIN else None


def colour_share(picture: np.ndarray, box: Sequence[float], colour: str) -> float:
    """How much of the middle of a box has a colour.

    Args:
        picture: `[H, W, 3]` uint8.
        box: corners (x0, y0, x1, y1) in pixels.
        colour: a key of :data:`KIN`.

    Returns:
        In [0, 1].
    """
    x0, y0, x1, y1 = box
    height, width = picture.shape[:2]
    rows, columns = _middle(y0, y1, height), _middle(x0, x1, width)
    names = colour_names(picture[rows, columns].reshape(-1, 3))
    return float(np.isin(names, list(KIN[colour])).mean())


def colour_names(pixels: np.ndarray) -> np.ndarray:
    """The name of each colour `[N, 3]` uint8, as strings `[N]`."""
    rgb = pixels.astype(np.float32) / 255
    most, least = rgb.max(-1), rgb.min(-1)
    spread = most - least
    r, g, b = rgb.T
    safe = np.where(spread > 0, spread, 1)
    hue = np.select(
        [most == r, most == g], [(g - b) / safe % 6, (b - r) / safe + 2], (r - g) / safe + 4
    )
    ends, names = np.array([end for end, _ in HUES]), np.array([name for _, name in HUES])
    found = names[np.searchsorted(ends, hue * 60).clip(max=len(ends) - 1)].astype("U8")
    saturation = spread / np.maximum(most, 1e-6)
    found[(found == "orange") & (most < 0.65)] = "brown"
    found[(found == "red") & (saturation < 0.5) & (most > 0.75)] = "pink"
    found[saturation < 0.18] = "grey"
    found[(saturation < 0.18) & (most > 0.8)] = "white"
    found[(most < 0.22) | ((most < 0.3) & (saturation < 0.3))] = "black"
    return found


def _middle(start: float, end: float, size: int) -> slice:
    middle, half = (start + end) / 2, (end - start) * INSIDE / 2
    first = min(max(int(middle - half), 0), size - 1)
    return slice(first, max(first + 1, min(int(middle + half) + 1, size)))
