"""What a first Run shows: `python -m benchmarks.template`.

The template *DPT demo* on many prompts: four pictures of one seed by the host's KSampler, and the
same four by DPT KSampler as it stands when it is put on the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from cyclopts import run as command
from rich.progress import track

from dpt_core.cli import emit
from dpt_core.evaluation.shapes import shapes_source
from dpt_core.evaluation.statistics import average, proportion

from . import in_comfyui
from .demo_nodes import DemoNodes

PICTURES = 4
READING = {"timestep": 500, "draws": 4, "seed": 0}


@dataclass
class Seen:
    """What was drawn, picture by picture.

    Attributes:
        held: whether the judge agrees.
        scores: alignment scores.
    """

    held: list[bool] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def compare(prompts: int, split: str) -> tuple[Seen, Seen]:
    """Draw plainly and with the sampler's defaults.

    Args:
        prompts: how many.
        split: whose; see :func:`~dpt_core.evaluation.shapes.shapes_source`.
    """
    kit, plain, ours = DemoNodes(), Seen(), Seen()
    inputs = kit.sampler.define_schema().inputs
    (preset,) = (each.default for each in inputs if each.id == "preset")
    for prompt in track(shapes_source(split, prompts).prompts, "drawing"):
        sampling = kit.sampling(prompt)
        defaults = kit.sampler.execute(
            model=kit.model,
            seed=prompt.seed,
            latent_image=kit.blank(PICTURES),
            adapter=kit.adapter,
            preset=preset,
            **sampling,
        ).result[0]
        for latent, seen in ((kit.plain(prompt.seed, PICTURES, sampling), plain), (defaults, ours)):
            images = kit.pictures(latent)
            scores = kit.score.execute(
                kit.model, kit.adapter, kit.vae, images, sampling["positive"], **READING
            ).result[1]
            seen.scores += scores
            seen.held += kit.right(images, prompt)
    return plain, ours


def main(*, prompts: int = 48, split: str = "held-out") -> None:
    """Draw the demo template's two rows for many prompts.

    Args:
        prompts: How many, four pictures each.
        split: Whose prompts: held-out, tuning, final or combinations.
    """
    in_comfyui.enter("cpu")
    with torch.inference_mode():
        plain, ours = compare(prompts, split)
    for name, seen in (("plain", plain), ("DPT KSampler", ours)):
        share = proportion(np.array(seen.held))
        emit(
            f"{name}: {share.value:.1%} right [{share.low:.0%}, {share.high:.0%}], mean score "
            f"{np.mean(seen.scores):.3f}"
        )
    held = np.array(ours.held, float) - np.array(plain.held, float)
    gain = average(held.reshape(-1, PICTURES).mean(1))
    score = average((np.array(ours.scores) - plain.scores).reshape(-1, PICTURES).mean(1))
    emit(
        f"difference, prompt by prompt: {100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, "
        f"{100 * gain.high:+.1f}], score {score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
    )


if __name__ == "__main__":
    command(main)
