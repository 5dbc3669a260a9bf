"""What the demo's denoiser draws, judged, at every checkpoint of its training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..evaluation import defaults
from ..files import complete
from ..generation import Sampling, generate
from ..shapes.judge import judge
from ..shapes.pairs import scene_pair
from .architectures import Architecture

logger = logging.getLogger(__name__)


def judged_preview(
    backbone: Any, architecture: Architecture, count: int, seed: int
) -> Callable[[nn.Module, Path], None]:
    """A preview for :func:`~dpt_core.training.loop.train`: captions drawn, verdicts in the log.

    Args:
        backbone: the model; the network that is trained is in it.
        architecture: of the network.
        count: how many captions.
        seed: of their scenes.
    """
    pairs = [scene_pair(seed, index) for index in range(count)]

    def draw(task: nn.Module, path: Path) -> None:
        from torchvision.utils import make_grid, save_image

        pictures = generate(
            architecture.pipeline(backbone.pipeline),
            [pair.text for pair in pairs],
            range(count),
            Sampling(defaults.STEPS, defaults.GUIDANCE),
        ).pictures
        held = [
            judge(picture, pair.caption).holds
            for picture, pair in zip(pictures, pairs, strict=True)
        ]
        logger.warning("%s: the caption holds in %d of %d", path.stem, sum(held), count)
        tiles = torch.from_numpy(pictures).movedim(-1, 1) / 255
        with complete(path) as partial:
            save_image(make_grid(tiles, nrow=8, padding=2), partial, format="png")

    return draw
