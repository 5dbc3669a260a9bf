"""Pictures of numbers, drawn with matplotlib without touching its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def score_curves(scores: Mapping[int, Sequence[float]], width: int = 768, height: int = 512):
    """Draw alignment score against step, one line per picture.

    Args:
        scores: step (from 0) → scores of the pictures, each in [-1, 1]; may be empty.
        width, height: size in pixels.

    Returns:
        `[height, width, 3]` uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="alignment score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    steps = sorted(scores)
    if steps:
        for picture, line in enumerate(zip(*(scores[step] for step in steps), strict=True)):
            axes.plot([step + 1 for step in steps], line, marker=".", label=f"image {picture + 1}")
        if len(scores[steps[0]]) <= 10:
            axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no step was corrected", ha="center", transform=axes.transAxes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
