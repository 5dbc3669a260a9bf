"""`dpt evaluate explain`: whether explanations agree with the judge."""

from __future__ import annotations

from pathlib import Path

from ...evaluation import defaults
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
from ..progress import progress


def explain(
    folder: Path | None = None,
    /,
    *,
    pictures: Positive = 300,
    split: str = "held-out",
    correction: CorrectionOptions = CorrectionOptions(),
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    batch_size: Positive = defaults.BATCH_SIZE,
    device: Device = "auto",
    weights: DemoWeights = None,
    architecture: DemoArchitecture = "unet",
) -> None:
    """Explain pictures of the shapes world and compare each ✓ and ✗ with what the judge sees.

    Half of the pictures are drawn plainly, half corrected, of the same prompts and seeds.

    For example:

        dpt evaluate explain
        dpt evaluate explain runs/explain --pictures 300 --split final

    Args:
        folder: Where pictures and explanations go; if not given, nothing is kept.
        pictures: How many pictures; of an odd number the last is corrected.
        split: held-out for development, tuning for choosing settings, final for figures that are
            reported, combinations for captions that training never had.
        batch_size: Pictures drawn together.
    """
    corrected = sampling.sampling(correction_of(correction))
    from ...evaluation.explaining import KINDS, agreement, drawn
    from ...evaluation.shapes import shapes_source
    from ..tables import show

    source = shapes_source(split, max(1, (pictures + 1) // 2))
    models = demo_models(weights, chosen_device(device), architecture)
    with progress("drawing", pictures) as done:
        shown, prompts = drawn(models, source, corrected, pictures, batch_size, done)
    with progress("explaining", pictures) as done:
        found, explained = agreement(models.plain, models.adapter, shown, prompts, done)
    figures = found.figures()
    if folder is not None:
        from ...files import write_json
        from ...png import save_png

        for place, (picture, prompt) in enumerate(zip(shown, prompts, strict=True)):
            save_png(picture, folder / f"{place:04d}.png", {"prompt": prompt})
        told = {"figures": figures, "explained": [each.as_data() for each in explained]}
        write_json(folder / "explained.json", told)
        say(f"pictures and explanations are in {folder}")
    names = ("every part", *KINDS, "all parts", "the judge's verdict")
    rows = [("", "agrees with the judge", "of", "hold", "✗ missed", "✗ for nothing")]
    for name in names:
        each = figures[name]
        share = f"{each['agreement']:.1%}" if each["number"] else "–"
        counts = (each[key] for key in ("number", "holding", "missed", "false alarms"))
        rows.append((name, share, *map(str, counts)))
    show(rows, [f"{figures['untold']} parts could not be told and are not counted."])
