"""What the adapter finds, drawn at every checkpoint of probing and tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..backbones.base import read_features
from ..files import complete
from ..grounding import ground
from .backbone import Backbone
from .data.examples import GroundingExample

EXAMPLES = 8
TIMESTEP = 300
"""Noise level at which the adapter looks; shapes are there, detail is not."""


def box_preview(
    backbone: Backbone,
    grounding: Dataset[GroundingExample],
    *,
    latents: bool = False,
    count: int = EXAMPLES,
) -> Callable[[nn.Module, Path], None]:
    """A preview for :func:`~dpt_core.training.loop.train`: true boxes dashed, the best box found.

    Args:
        backbone: the model; with a LoRA being trained, its network carries it.
        grounding: its first examples are drawn.
        latents: the examples hold scaled latents in place of pictures.
        count: how many.
    """

    @torch.no_grad()
    def draw(task: nn.Module, path: Path) -> None:
        examples = [grounding[index] for index in range(min(count, len(grounding)))]
        shown = torch.stack([example.image for example in examples]).to(backbone.network.device)
        clean = shown if latents else backbone.encode(shown)
        pictures = backbone.decode(shown) if latents else shown
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
        levels = torch.full((len(clean),), TIMESTEP, device=clean.device)
        captions = [example.caption for example in examples]
        inputs = backbone.model.conditioning(captions, clean.shape[-2:])
        adapter = task.adapter
        call = backbone.noised(clean, noise, levels, inputs)
        features, _ = read_features(backbone.model, adapter.config.tap, call)
        answer = adapter(features.float(), levels)
        sizes = torch.ones(len(clean), 2, device=clean.device)
        boxes, scores = (each.cpu() for each in ground(answer.logits, answer.boxes, sizes))
        best = scores.argmax(1)
        rows = torch.arange(len(best))
        figure = _figure(examples, pictures.cpu(), boxes[rows, best], scores[rows, best])
        with complete(path) as partial:
            figure.savefig(partial, format="png")

    return draw


def _figure(
    examples: Sequence[GroundingExample],
    pictures: torch.Tensor,
    boxes: torch.Tensor,
    scores: torch.Tensor,
) -> Any:
    """Pictures in [-1, 1], boxes as corners in [0, 1]."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(4, len(examples))
    lines = -(-len(examples) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.8 * lines), dpi=100, layout="constrained")
    for index, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
        axes = figure.add_subplot(lines, columns, index + 1)
        pixels = (picture.float().movedim(0, -1) / 2 + 0.5).clamp(0, 1).numpy()
        axes.imshow(pixels, extent=(0, 1, 1, 0))
        axes.set_title(f"{example.caption}\n{scores[index]:.2f}", fontsize=8, wrap=True)
        axes.set_axis_off()
        for x, y, w, h in example.boxes.tolist():
            corner = x - w / 2, y - h / 2
            axes.add_patch(Rectangle(corner, w, h, fill=False, linestyle="--", color="gray"))
        x0, y0, x1, y1 = boxes[index].tolist()
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="red"))
    return figure
