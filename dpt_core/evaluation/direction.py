"""Where a correction points: whether moving the latent moves the picture the same way.

The sampler steps from its own latent with the prediction made at the corrected one. At high noise
the clean prediction follows the move; at low noise a denoiser takes the move for noise and the
prediction goes against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..adapter import DiscriminativeAdapter
from ..backbones.base import Noise
from ..backbones.registry import backbone_of
from ..correction import Correction, score_gradient
from ..diffusers import replaced, score_function, text_vectors
from ..generation import Sampling, generate
from ..reading import noise_draws, renoised
from ..search import READ_AT
from .statistics import Estimate, average


class Direction(NamedTuple):
    """What moving the latents does at one noise level.

    Attributes:
        level: 0 to 1000, larger is noisier.
        cosine: between ∂s/∂z and the change of the conditional clean prediction x̂₀; below 0 the
            correction works against itself.
        gain: of the score of x̂₀, noised again to :data:`~dpt_core.search.READ_AT`.
    """

    level: float
    cosine: Estimate
    gain: Estimate


def directions(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Direction]:
    """Look at every step of plain sampling, which is not changed.

    Args:
        pipeline: a diffusers pipeline that calls its network once a step.
        adapter: the adapter, on its device.
        prompts, seeds: one of each per picture.
        sampling: how; its correction says how far the latents move.

    Returns:
        One per step, the noisiest first, its estimates over the pictures.
    """
    backbone, wanted = backbone_of(pipeline), sampling.correction or Correction()
    module, text = backbone.module, text_vectors(pipeline, prompts, adapter.config.text)
    plain, found = module.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        whole = backbone.call(args, kwargs)
        predicted, rows = backbone.run(plain, whole), backbone.conditional(whole)
        call = whole.select(rows)
        sigma, x = call.sigmas(), call.x
        score = score_function(backbone, adapter, call, text, plain)
        _, gradient = score_gradient(x, score)
        noise = Noise.of(backbone.path, sigma, x)
        move = wanted.move(gradient, noise) / noise.scale
        with torch.no_grad():
            moved = backbone.run(plain, replace(call, x=x + move))
            before, after = (
                backbone.clean(sigma, x, backbone.sign * each) for each in (predicted[rows], moved)
            )
            change = after - before
            cosine = torch.cosine_similarity(gradient.flatten(1), change.flatten(1))
            draw = noise_draws(before, 1, 0).expand_as(before)
            scores = []
            for clean in (before, after):
                again = renoised(backbone, call, clean, draw, READ_AT)
                scores.append(score_function(backbone, adapter, again, text, plain)(again.x))
        level = float(backbone.path.level(sigma[:1]))
        found.append((level, cosine.cpu(), (scores[1] - scores[0]).cpu()))
        return backbone.result(whole, predicted)

    with replaced(module, "forward", forward):
        generate(pipeline, prompts, seeds, sampling.plain)
    return [
        Direction(level, average(np.asarray(cosine)), average(np.asarray(gain)))
        for level, cosine, gain in found
    ]


def direction_rows(found: Sequence[Direction]) -> list[list[str]]:
    """As rows of cells, the first being the heading."""

    def cell(each: Estimate) -> str:
        return f"{each.value:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"

    heading = ["noise level", "cosine of score's gradient and change of x̂₀", "gain in x̂₀'s score"]
    return [heading, *([f"{each.level:.0f}", cell(each.cosine), cell(each.gain)] for each in found)]
