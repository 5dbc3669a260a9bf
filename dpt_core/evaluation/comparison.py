"""One prompt with and without DPT, as one picture."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backbones.registry import network_name
from ..diffusers import text_vectors
from ..generation import Sampling, generate
from ..reading import watching_scores
from ..shapes.caption import Caption
from ..shapes.judge import Verdict, judge
from .models import Models

COLOURS = ("tab:gray", "tab:blue")
"""Of the curves, plain and with DPT."""


@dataclass(frozen=True)
class Side:
    """`N` pictures of one kind.

    Attributes:
        title: which kind.
        seeds: what they were drawn from.
        pictures: `[N, H, W, 3]` uint8.
        verdicts: whether the caption holds.
        curves: `[S, N]` alignment score before each step, read with the LoRA on both sides.
    """

    title: str
    seeds: tuple[int, ...]
    pictures: np.ndarray
    verdicts: tuple[Verdict, ...]
    curves: np.ndarray


def compare(
    models: Models, prompt: str, caption: Caption, seeds: Sequence[int], sampling: Sampling
) -> list[Side]:
    """Draw a prompt plainly, and with LoRA and self-correction.

    Args:
        models: what draws.
        prompt: the prompt.
        caption: what the judge looks for.
        seeds: one per picture.
        sampling: with self-correction.
    """
    seeds, sides = tuple(seeds), []
    prompts = [prompt] * len(seeds)
    text = text_vectors(models.plain, prompts, models.adapter.config.text)
    reader = copy.copy(models.tuned)
    network = network_name(reader)
    reader.register_modules(**{network: copy.deepcopy(getattr(models.tuned, network))})
    kinds = {"plain": (False, sampling.plain), "with DPT": (True, sampling)}
    for title, (lora, how) in kinds.items():
        pipeline = models.pipeline(lora)
        with watching_scores(pipeline, models.adapter, text, reader) as scores:
            drawn = generate(pipeline, prompts, seeds, how, models.adapter)
        verdicts = tuple(judge(picture, caption) for picture in drawn.pictures)
        curves = np.stack([each.numpy() for each in scores])
        sides.append(Side(title, seeds, drawn.pictures, verdicts, curves))
    return sides


def draw_comparison(prompt: str, sides: Sequence[Side]) -> Any:
    """A row of pictures per side with their verdicts, and below them score against step.

    Returns:
        A PIL image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    columns = len(sides[0].seeds)
    height = 2.9 * len(sides) + 2.6
    figure = Figure(figsize=(max(5.0, 2.3 * columns), height), dpi=120, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(prompt, 24 * max(2, columns)), fontsize=13)
    grid = figure.add_gridspec(len(sides) + 1, columns, height_ratios=[1] * len(sides) + [0.9])
    for row, side in enumerate(sides):
        for column in range(columns):
            _draw_picture(figure.add_subplot(grid[row, column]), side, column)
    _draw_curves(figure.add_subplot(grid[-1, :]), sides)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_picture(axes: Any, side: Side, index: int) -> None:
    verdict = side.verdicts[index]
    colour = "tab:green" if verdict.holds else "tab:red"
    words = "holds" if verdict.holds else "\n".join(
        textwrap.shorten(each, 32) for each in verdict.failures[:3]
    )  # fmt: skip
    axes.imshow(side.pictures[index], interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"seed {side.seeds[index]}\n{words}", color=colour, fontsize=8)
    if index == 0:
        axes.set_ylabel(side.title, fontsize=11)
    for edge in axes.spines.values():
        edge.set(color=colour, linewidth=2)


def _draw_curves(axes: Any, sides: Sequence[Side]) -> None:
    from matplotlib.ticker import MaxNLocator

    for side, colour in zip(sides, COLOURS, strict=False):
        steps = range(1, len(side.curves) + 1)
        axes.plot(steps, side.curves, color=colour, alpha=0.3, linewidth=1)
        axes.plot(steps, side.curves.mean(1), color=colour, linewidth=2.5, label=side.title)
    axes.set(xlabel="step", ylabel="alignment score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
