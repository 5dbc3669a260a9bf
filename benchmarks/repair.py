"""What explain and repair mends: `python -m benchmarks.repair`.

Prompts of the shapes world are drawn plainly in ComfyUI. Where the judge says that a picture is
wrong, DPT Explain gives the mask of what fails, and DPT Search KSampler draws that again, as the
template *DPT explain and repair* does. The judge looks at it once more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cyclopts import run as command
from rich.progress import Progress

from dpt_core.cli import emit
from dpt_core.evaluation.shapes import shapes_source
from dpt_core.evaluation.statistics import proportion

from . import in_comfyui
from .demo_nodes import DemoNodes

SEARCH = {"candidates": 4, "decide_after": 0.4, "stages": 2, "keep": 1}
"""As in the template."""


@dataclass
class Mended:
    """What came of wrong pictures.

    Attributes:
        right: per picture that was wrong, whether it is right after the repair.
        unseen: how many of them the explanation took for right: nothing is drawn again.
        drawing, repairing: seconds.
        drawn: pictures that were drawn plainly.
    """

    right: list[bool]
    unseen: int = 0
    drawing: float = 0.0
    repairing: float = 0.0
    drawn: int = 0


def mend(failures: int, split: str, advance: Any = lambda: None) -> Mended:
    """Draw until so many pictures are wrong, and mend those.

    Args:
        failures: how many wrong pictures.
        split: whose prompts; see :func:`~dpt_core.evaluation.shapes.shapes_source`.
        advance: called after each of them.
    """
    kit, found = DemoNodes(), Mended([])
    for prompt in shapes_source(split, 20 * failures).prompts:
        if len(found.right) == failures:
            break
        start = time.perf_counter()
        sampling = kit.sampling(prompt)
        latent = kit.plain(prompt.seed, 1, sampling)
        image = kit.pictures(latent)
        found.drawing += time.perf_counter() - start
        found.drawn += 1
        if kit.right(image, prompt)[0]:
            continue
        start = time.perf_counter()
        *_, mask, _ = kit.explain.execute(
            kit.model, kit.adapter, kit.vae, image, kit.clip, prompt.text, 0, "dark"
        ).result
        if mask.any():
            latent = {**latent, "noise_mask": mask}
            result = kit.search.execute(
                model=kit.model, seed=prompt.seed + 1, latent_image=latent, adapter=kit.adapter,
                preset="balanced", **sampling, **SEARCH,
            ).result  # fmt: skip
            image = kit.pictures(result[0])
        else:
            found.unseen += 1
        found.repairing += time.perf_counter() - start
        found.right += kit.right(image, prompt)
        advance()
    return found


def main(*, failures: int = 100, split: str = "held-out") -> None:
    """Mend wrong pictures.

    Args:
        failures: How many.
        split: Whose prompts: held-out, tuning, final or combinations.
    """
    in_comfyui.enter("cpu")
    with Progress() as bars, torch.inference_mode():
        bar = bars.add_task("mending", total=failures)
        found = mend(failures, split, lambda: bars.advance(bar))
    share = proportion(np.array(found.right))
    cost = found.repairing / len(found.right) / (found.drawing / found.drawn)
    emit(
        f"of {len(found.right)} wrong pictures {share.value:.0%} [{share.low:.0%}, "
        f"{share.high:.0%}] are right after one repair, which takes {cost:.1f} times as long as "
        f"drawing one; {found.unseen} were taken for right and not drawn again"
    )


if __name__ == "__main__":
    command(main)
