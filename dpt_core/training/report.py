"""One picture of a run: its losses, how good the adapter is by now, and boxes that it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..plots import draw_losses
from .data.images import PictureSource
from .held_out import Found

COLUMNS = 4
LINES = {"itm": "right text above wrong", "itm_images": "right picture above wrong", "auc": "AUC"}
"""Curves of the figures, and what they are called."""


def report(
    title: str,
    rows: Sequence[Mapping[str, float]],
    history: Sequence[Mapping[str, float]],
    found: Sequence[Found],
    pictures: PictureSource,
) -> Any:
    """Draw a run so far.

    Args:
        title: what is trained.
        rows: losses by step; may be empty.
        history: figures of the held-out examples by step.
        found: boxes, true ones and the surest found.
        pictures: by name, `[3, H, W]` in [-1, 1].

    Returns:
        A PIL image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    lines = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(9.6, 4.2 + 2.4 * lines), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + lines, 2 * COLUMNS, height_ratios=[3.6, *[2.4] * lines])
    draw_losses(figure.add_subplot(grid[0, :COLUMNS]), rows)
    _draw_figures(figure.add_subplot(grid[0, COLUMNS:]), history)
    for index, each in enumerate(found):
        line, column = divmod(index, COLUMNS)
        place = grid[1 + line, 2 * column : 2 * column + 2]
        _draw_boxes(figure.add_subplot(place), each, pictures)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_figures(axes: Any, history: Sequence[Mapping[str, float]]) -> None:
    axes.set(xlabel="step", ylabel="held-out pictures", ylim=(0.4, 1.0))
    axes.grid(alpha=0.3)
    for name, label in LINES.items():
        steps = [each["step"] for each in history]
        values = [each[name] for each in history]
        if values:
            axes.plot(steps, values, marker=".", label=f"{label}: {values[-1]:.2f}")
    if history:
        axes.legend(frameon=False, loc="lower right")


def _draw_boxes(axes: Any, found: Found, pictures: PictureSource) -> None:
    from matplotlib.patches import Rectangle

    pixels = pictures(found.picture, found.picture, None).tensor
    shown = (pixels.movedim(0, -1) / 2 + 0.5).clamp(0, 1).numpy()
    axes.imshow(shown, extent=(0, 1, 1, 0))
    axes.set_title(f"{found.phrase}\n{found.confidence:.2f}", fontsize=8, wrap=True)
    axes.set_axis_off()
    for x, y, width, height in found.true.tolist():
        corner = x - width / 2, y - height / 2
        axes.add_patch(Rectangle(corner, width, height, fill=False, linestyle="--", color="gray"))
    x0, y0, x1, y1 = found.box.tolist()
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="red"))
