"""`dpt evaluate direction`: down to which noise a correction helps."""

from __future__ import annotations

from .. import say
from ..loading import chosen_device, demo_models
from ..options import (
    CorrectionOptions,
    DemoArchitecture,
    DemoSamplingOptions,
    DemoWeights,
    Device,
    Positive,
    correction_of,
)


def direction(
    *,
    prompts: Positive = 48,
    split: str = "tuning",
    correction: CorrectionOptions = CorrectionOptions(),
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    device: Device = "auto",
    weights: DemoWeights = None,
    architecture: DemoArchitecture = "unet",
) -> None:
    """Measure at every step whether moving the latent moves the picture the same way.

    Where the cosine is below 0, a correction works against itself: end_percent should come before.

    For example:

        dpt evaluate direction
        dpt evaluate direction --prompts 96 --strength 80

    Args:
        prompts: How many prompts of the shapes world.
        split: tuning, or held-out.
    """
    settings = sampling.sampling(correction_of(correction))
    from ...evaluation.direction import direction_rows, directions
    from ...evaluation.shapes import shapes_source
    from ..tables import show

    models = demo_models(weights, chosen_device(device), architecture)
    source = shapes_source(split, prompts)
    say(f"drawing {prompts} pictures …")
    texts, seeds = zip(*((each.text, each.seed) for each in source.prompts), strict=True)
    show(direction_rows(directions(models.plain, models.adapter, texts, seeds, settings)))
