"""Pictures of numbers, drawn with matplotlib without touching its global state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

BLANK = 64
"""Side of a picture that stands for one that could not be drawn."""


def drawn(draw: Callable[..., Any], *given: Any, instead: Any = None) -> Any:
    """A picture that tells of finished work, which is not lost where it cannot be drawn.

    Args:
        draw: draws it.
        given: what `draw` is called with.
        instead: what stands for it then; by default a black square. The log says why.
    """
    try:
        return draw(*given)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        logger.warning("DPT: a report could not be drawn (%s); all else is as it should be", what)
        return np.zeros((BLANK, BLANK, 3), np.uint8) if instead is None else instead


def score_curves(
    scores: Mapping[int, Sequence[float]],
    plain: Mapping[int, Sequence[float]] | None = None,
    width: int = 768,
    height: int = 512,
):
    """Draw alignment score against step, one line per picture.

    Args:
        scores: step (from 0) → scores of the pictures, each in [-1, 1]; may be empty.
        plain: the same of plain sampling, drawn dashed behind them.
        width, height: size in pixels.

    Returns:
        `[height, width, 3]` uint8.
    """
    axes, canvas = _score_axes(width, height)
    steps = sorted(scores)
    if steps:
        for picture, line in enumerate(zip(*(scores[step] for step in steps), strict=True)):
            axes.plot([step + 1 for step in steps], line, marker=".", label=f"image {picture + 1}")
        if plain:
            at, behind = [step + 1 for step in plain], zip(*plain.values(), strict=True)
            for line, values in zip(axes.get_lines(), behind, strict=False):
                colour = line.get_color()
                axes.plot(at, values, "--", color=colour, alpha=0.5, linewidth=1, zorder=1)
            axes.plot([], [], "--", color="grey", linewidth=1, label="plain")
        if len(scores[steps[0]]) <= 10:
            axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no step was corrected", ha="center", transform=axes.transAxes)
    return pixels_of(canvas)


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], least: float = 0.2) -> str:
    """A curve as a line of text, a bar for each value.

    Args:
        values: finite numbers, in order; may be empty.
        least: what the bars span at least, so that small changes look small.
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    low, span = min(low, (low + high - least) / 2), max(high - low, least)
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in values)


def search_curves(
    scores: Mapping[int, Sequence[float]],
    dropped: Sequence[int],
    names: Sequence[str],
    width: int = 768,
    height: int = 512,
):
    """Draw the scores of a search against the step, one line per candidate.

    Lines of dropped candidates end with a cross; those of the kept are thick.

    Args:
        scores: step (from 0) → scores of the candidates, NaN where none was read; may be empty.
        dropped: per candidate, after how many steps it was dropped, 0 where it was kept.
        names: of the candidates.
        width, height: size in pixels.

    Returns:
        `[height, width, 3]` uint8.
    """
    axes, canvas = _score_axes(width, height)
    for candidate, (after, name) in enumerate(zip(dropped, names, strict=True)):
        points = [(step + 1, scores[step][candidate]) for step in sorted(scores)]
        points = [(step, score) for step, score in points if score == score]
        if not points:
            continue
        label = f"{name}, dropped after step {after}" if after else f"{name}, kept"
        (line,) = axes.plot(*zip(*points, strict=True), marker=".", label=label,
                            linewidth=1 if after else 2.5)  # fmt: skip
        if after:
            axes.plot(*points[-1], marker="x", markersize=9, color=line.get_color())
    if len(names) <= 10 and axes.lines:
        axes.legend(frameon=False)
    if not axes.lines:
        axes.text(0.5, 0.5, "no score was read", ha="center", transform=axes.transAxes)
    return pixels_of(canvas)


def loss_curves(rows: Sequence[Mapping[str, float]], width: int = 960, height: int = 540):
    """Draw losses against step, each averaged over about a hundredth of the run.

    Args:
        rows: per step, `step` and the losses by name.
        width, height: size in pixels.

    Returns:
        A PIL image.
    """
    from PIL import Image

    figure, canvas = new_figure(width, height)
    draw_losses(figure.add_subplot(), rows)
    return Image.fromarray(pixels_of(canvas))


def draw_losses(axes, rows: Sequence[Mapping[str, float]]) -> None:
    """Losses against step on axes of matplotlib; see :func:`loss_curves`."""
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    window = max(1, len(rows) // 100)
    for name in sorted({name for row in rows for name in row} - {"step"}):
        points = [(row["step"], float(row[name])) for row in rows if row.get(name)]
        steps, values = np.array(points).T
        kernel = np.ones(min(window, len(values))) / min(window, len(values))
        smooth = np.convolve(values, kernel, mode="valid")
        axes.plot(steps[-len(smooth) :], smooth, label=name)
    if rows:
        axes.legend(frameon=False)


def _score_axes(width: int, height: int):
    """Axes for alignment scores against steps, and their canvas."""
    from matplotlib.ticker import MaxNLocator

    figure, canvas = new_figure(width, height)
    axes = figure.add_subplot(xlabel="step", ylabel="alignment score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return axes, canvas


def pixels_of(canvas) -> np.ndarray:
    """A canvas as a picture `[H, W, 3]` uint8."""
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def new_figure(width: int, height: int):
    """A figure of matplotlib of a size in pixels, and its canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    return figure, FigureCanvasAgg(figure)
