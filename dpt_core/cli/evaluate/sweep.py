"""`dpt evaluate sweep`: settings of a correction against each other."""

from __future__ import annotations

from pathlib import Path

from ...correction import Correction
from ...evaluation import defaults
from ..loading import chosen_device, demo_models
from ..options import (
    DemoArchitecture,
    DemoSamplingOptions,
    DemoWeights,
    Device,
    MeasureOptions,
    Positive,
    SweepOptions,
    given,
)
from .running import pictures, report


def sweep(
    folder: Path,
    /,
    *,
    correction: SweepOptions = SweepOptions(),
    lora: bool = False,
    prompts: Positive = defaults.SWEEP_PROMPTS,
    split: str = "tuning",
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    measure: MeasureOptions = MeasureOptions(),
    score_lora: bool = True,
    batch_size: Positive = defaults.BATCH_SIZE,
    device: Device = "auto",
    weights: DemoWeights = None,
    architecture: DemoArchitecture = "unet",
) -> None:
    """Try every combination of self-correction's settings, on prompts kept for choosing.

    Repeat a setting to try several values; those that are not given are the preset's.

    For example:

        dpt evaluate sweep runs/sweep --mode exact --mode lagged \\
            --end-percent 0.3 --end-percent 0.6

    Args:
        folder: Where pictures and figures go; run again to go on after a stop.
        lora: All arms with the LoRA.
        prompts: How many prompts.
        split: tuning, or held-out.
        score_lora: Score pictures with the LoRA, with which the adapter was tuned.
        batch_size: Pictures drawn together.
    """
    grid = given(correction)
    base = Correction.chosen(grid.pop("preset"))
    if not grid:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in vars(base))
        raise ValueError(f"nothing to sweep: give one or more of {names}, each once or more")
    settings, scoring = sampling.sampling(base), measure.measure(lora=score_lora)
    from ...evaluation.generation import Evaluation
    from ...evaluation.processes import Processes
    from ...evaluation.report import cost_chart
    from ...evaluation.shapes import shapes_source
    from ...evaluation.sweep import sweep_arms

    arms = sweep_arms(settings, grid, lora)
    evaluation = Evaluation(shapes_source(split, prompts), settings, scoring, batch_size)
    processes = Processes(chosen_device(device))
    models = demo_models(weights, processes.device, architecture)
    found = pictures(models, folder, evaluation, processes, arms)
    if processes.main:
        results = report(found, "Self-correction, swept")
        cost_chart(results, found.columns[0], folder / "sweep.png")
