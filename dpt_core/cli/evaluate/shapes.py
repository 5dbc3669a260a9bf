"""`dpt evaluate shapes`: the comparison in the shapes world."""

from __future__ import annotations

from pathlib import Path

from ...evaluation import defaults
from ..loading import chosen_device, demo_models
from ..options import (
    CorrectionOptions,
    DemoArchitecture,
    DemoSamplingOptions,
    DemoWeights,
    Device,
    MeasureOptions,
    Natural,
    Positive,
    correction_of,
)
from .running import answers, pictures, report


def shapes(
    folder: Path,
    /,
    *,
    prompts: Positive = defaults.PROMPTS,
    split: str = "held-out",
    seeds: Positive = 1,
    arm: list[str] | None = None,
    best_of: Natural = 0,
    correction: CorrectionOptions = CorrectionOptions(),
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    measure: MeasureOptions = MeasureOptions(),
    score_lora: bool = True,
    adapter: bool = True,
    batch_size: Positive = defaults.BATCH_SIZE,
    device: Device = "auto",
    weights: DemoWeights = None,
    architecture: DemoArchitecture = "unet",
) -> None:
    """Compare ways of drawing in the shapes world, where a judge says whether captions hold.

    An arm's name has parts joined by +. Parts are base, self-correction (the correction of this
    command), lora, a preset by name, best-of-N (the best of N pictures by score), zero-shot-N (by
    the model's own denoising error, without an adapter), guidance-X, steps-N, and search-N (of N
    candidates one goes on, with stages-N and decide-PERCENT).

    For example:

        dpt evaluate shapes runs/shapes --arm base --arm self-correction
        dpt evaluate shapes runs/final --split final --arm base \\
            --arm published --arm fast --arm balanced --arm balanced+lora
        dpt evaluate shapes runs/seeds --prompts 126 --seeds 4

    Args:
        folder: Where pictures and figures go; run again to go on after a stop.
        prompts: How many prompts.
        split: held-out for development, tuning for choosing settings, final for figures that are
            reported, combinations for captions that training never had.
        seeds: Pictures per prompt; with more than one, how far they are apart is told.
        arm: Repeat for several; if not given, base, self-correction, lora, both and best-of. The
            first is compared with.
        best_of: Candidates of the arm best-of; 0: as many as cost what correction costs.
        score_lora: Score pictures with the LoRA, with which the adapter was tuned.
        adapter: Also test the adapter: matching, grounding, and how its score and the model's own
            denoising error tell right pictures from wrong ones.
        batch_size: Pictures drawn together.
    """
    settings = sampling.sampling(correction_of(correction))
    scoring = measure.measure(lora=score_lora)
    from ...evaluation.arms import STANDARD
    from ...evaluation.discrimination import Asked, scene_questions
    from ...evaluation.generation import Evaluation
    from ...evaluation.processes import Processes
    from ...evaluation.shapes import shapes_source

    source = shapes_source(split, prompts, seeds)
    names = tuple(arm or (*STANDARD, "best-of"))
    evaluation = Evaluation(source, settings, scoring, batch_size, best_of, names)
    processes = Processes(chosen_device(device))
    models = demo_models(weights, processes.device, architecture)
    found = pictures(models, folder, evaluation, processes, readers=adapter)
    answered = None
    if adapter:
        asked = Asked(defaults.METRIC_TIMESTEPS, batch_size=batch_size)
        questions = scene_questions(prompts)
        answered = answers(models, folder / "adapter", asked, questions, processes)
    if processes.main:
        report(found, f"DPT in the shapes world: {split}", answered)
