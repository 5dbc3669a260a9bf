"""`dpt evaluate generation`: published benchmarks of generation, on any model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from .. import say
from ..loading import chosen_device, models_of
from ..options import (
    Adapter,
    CorrectionOptions,
    Device,
    Lora,
    MeasureOptions,
    Natural,
    Positive,
    SamplingOptions,
    correction_of,
)
from .running import pictures, report

if TYPE_CHECKING:
    from ...evaluation.catalogue import MetricWeights


@Parameter(name="*")
@dataclass(frozen=True)
class MetricOptions:
    """Where the weights of further metrics are.

    Attributes:
        clip: Folder of a CLIP model.
        blip: Folder of a BLIP retrieval model.
        inception: torch-fidelity's Inception weights, for FID and IS.
        reference: Folder of real pictures, for FID.
    """

    clip: Path | None = None
    blip: Path | None = None
    inception: Path | None = None
    reference: Path | None = None

    def weights(self) -> MetricWeights:
        """The settings of the core."""
        from ...evaluation.catalogue import MetricWeights

        return MetricWeights(**vars(self))


@Parameter(name="*")
@dataclass(frozen=True)
class LongSamplingOptions(SamplingOptions):
    """As the paper samples its benchmarks."""

    steps: Positive = 50


def generation(
    model: Path,
    folder: Path,
    /,
    *,
    prompts: str,
    adapter: Adapter,
    prompts_path: Path | None = None,
    limit: Natural = 0,
    seed: Natural = 0,
    arm: list[str] | None = None,
    best_of: Natural = 0,
    correction: CorrectionOptions = CorrectionOptions(),
    lora: Lora = 1.0,
    sampling: LongSamplingOptions = LongSamplingOptions(),
    measure: MeasureOptions = MeasureOptions(),
    metrics: MetricOptions = MetricOptions(),
    batch_size: Positive = 8,
    device: Device = "auto",
) -> None:
    """Draw a benchmark's prompts with and without LoRA and self-correction, and score them.

    For example:

        dpt evaluate generation MODEL_DIR runs/mine --prompts mine.txt \\
            --adapter dpt.safetensors
        dpt evaluate generation MODEL_DIR runs/cc --prompts cc-500 \\
            --prompts-path CC-500.txt --adapter dpt.safetensors --clip clip

    Args:
        model: A diffusers model directory: SD 1.x, 2.x or SDXL.
        folder: Where all results go; run again to go on after a stop.
        prompts: cc-500, abc-6k, coco-nss1k, shapes, or a file with one prompt per line.
        prompts_path: The benchmark's file, or the folder where it lies.
        limit: Only the first so many; 0 for all.
        seed: Another one gives other pictures.
        arm: Repeat for several, as in `dpt evaluate shapes`; if not given, base,
            self-correction, lora and both. The first is compared with.
        best_of: Also draw so many and keep the best by score, the arm best-of; 0: do not.
        batch_size: How many at a time, per process.
    """
    settings = sampling.sampling(correction_of(correction))
    weights = metrics.weights()
    skipped = weights.check()
    from ...evaluation.arms import STANDARD
    from ...evaluation.benchmarks import open_prompts
    from ...evaluation.generation import Evaluation
    from ...evaluation.processes import Processes

    source = open_prompts(prompts, prompts_path, seed, limit or None)
    names = tuple(arm or (*STANDARD, *(["best-of"] * (best_of > 0))))
    evaluation = Evaluation(
        source, settings, measure.measure(), batch_size, best_of, names, weights
    )
    processes = Processes(chosen_device(device))
    for line in skipped:
        say(line)
    models = models_of(model, adapter, processes.device, lora)
    found = pictures(models, folder, evaluation, processes)
    if processes.main:
        report(found, f"DPT on {source.about['source']}")
