"""One picture of a run: its losses, how good the adapter is by now, and boxes that it finds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..plots import draw_losses, new_figure, pixels_of
from .data.images import PictureSource
from .data.rows import CaptionedPictures
from .held_out import Found

if TYPE_CHECKING:
    from .tuning_run import Tuned

WIDTH, COLUMNS = 960, 4
"""Of a picture in pixels, and how many pictures stand side by side in it."""

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
    lines = -(-len(found) // COLUMNS)
    figure, canvas = new_figure(WIDTH, round(100 * (4.2 + 2.4 * lines)))
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + lines, 2 * COLUMNS, height_ratios=[3.6, *[2.4] * lines])
    draw_losses(figure.add_subplot(grid[0, :COLUMNS]), rows)
    _draw_figures(figure.add_subplot(grid[0, COLUMNS:]), history)
    for index, each in enumerate(found):
        line, column = divmod(index, COLUMNS)
        place = grid[1 + line, 2 * column : 2 * column + 2]
        _draw_boxes(figure.add_subplot(place), each, pictures)
    return _picture(canvas)


def data_sheet(data: CaptionedPictures, count: int = 8) -> Any:
    """Some of the data: captions, the first hard negative of each, boxes with their phrases.

    Args:
        data: captioned pictures.
        count: how many, spread over the data.

    Returns:
        A PIL image.
    """
    rows = data.matching[:: max(1, len(data.matching) // count)][:count]
    boxed: dict[str, list] = {}
    for row in data.grounding:
        boxed.setdefault(row.image, []).append(row)
    lines = -(-len(rows) // COLUMNS)
    figure, canvas = new_figure(WIDTH, 330 * lines)
    for index, row in enumerate(rows):
        axes = figure.add_subplot(lines, COLUMNS, index + 1)
        picture = data.images(row.image, row.where, None)
        _show(axes, picture.tensor)
        wrong = f"✗ {row.negative_captions[0]}" if row.negative_captions else "no hard negative"
        lines_of_text = textwrap.wrap(f"✓ {row.caption}", 40) + textwrap.wrap(wrong, 40)
        axes.set_title("\n".join(lines_of_text[:6]), fontsize=7)
        for number, each in enumerate(boxed.get(row.image, ())):
            for x, y, width, height in each.boxes:
                corner = x / picture.width, y / picture.height
                sides = width / picture.width, height / picture.height
                _rectangle(axes, corner, sides, f"C{number}")
                axes.text(*corner, each.caption, fontsize=6, color=f"C{number}", va="bottom")
    return _picture(canvas)


def tuning_sheet(found: Tuned, pictures: Sequence[torch.Tensor]) -> Any:
    """Losses of a LoRA's tuning, and prompts drawn without it and with it.

    Args:
        found: the run.
        pictures: `[P, H, W, 3]` in [0, 1] without the LoRA, and with it, of the first prompts.

    Returns:
        A PIL image.
    """
    count = len(pictures[0])
    figure, canvas = new_figure(WIDTH, 860)
    grid = figure.add_gridspec(3, COLUMNS, height_ratios=[3.6, 2.5, 2.5])
    figure.suptitle(
        f"mean score without the LoRA {found.before:.3f}, with it at strength {found.strength:g} "
        f"{found.after:.3f}"
    )
    draw_losses(figure.add_subplot(grid[0, :]), found.rows)
    for line, side in enumerate(pictures):
        for column in range(min(count, COLUMNS)):
            axes = figure.add_subplot(grid[1 + line, column])
            _show(axes, side[column].movedim(-1, 0).float() * 2 - 1)
            words = textwrap.wrap(found.prompts[column], 32)[:2]
            axes.set_title("\n".join([("without", "with")[line], *words]), fontsize=7)
    return _picture(canvas)


def _picture(canvas: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels_of(canvas))


def _show(axes: Any, pixels: torch.Tensor) -> None:
    """A picture `[3, H, W]` in [-1, 1]."""
    shown = (pixels.movedim(0, -1) / 2 + 0.5).clamp(0, 1).numpy()
    axes.imshow(shown, extent=(0, 1, 1, 0))
    axes.set_axis_off()


def _rectangle(
    axes: Any, corner: tuple[float, float], sides: tuple[float, float], color: str, line: str = "-"
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, *sides, fill=False, color=color, linestyle=line))


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
    _show(axes, pictures(found.picture, found.picture, None).tensor)
    axes.set_title(f"{found.phrase}\n{found.confidence:.2f}", fontsize=8, wrap=True)
    for x, y, width, height in found.true.tolist():
        _rectangle(axes, (x - width / 2, y - height / 2), (width, height), "gray", "--")
    x0, y0, x1, y1 = found.box.tolist()
    _rectangle(axes, (x0, y0), (x1 - x0, y1 - y0), "red")
