"""`dpt evaluate generation`: published benchmarks of generation, on any model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from .. import emit, say
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
from ..progress import progress
from ..tables import show

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
        arm: Repeat for several of base, self-correction, lora, both, best-of; all if not given.
            The first is compared with.
        best_of: Also draw so many and keep the best by score; 0: do not.
        batch_size: How many at a time, per process.
    """
    settings = sampling.sampling(correction_of(correction))
    weights = metrics.weights()
    skipped = weights.check()
    from ...evaluation.benchmark_report import notes, write_benchmark
    from ...evaluation.benchmarks import open_prompts
    from ...evaluation.generation_benchmark import (
        Benchmark,
        draw_benchmark,
        open_benchmark,
        score_benchmark,
    )
    from ...evaluation.processes import Processes
    from ...evaluation.tables import metric_table

    source = open_prompts(prompts, prompts_path, seed, limit or None)
    benchmark = Benchmark(
        source, settings, measure.measure(), batch_size, best_of, tuple(arm or ()), weights
    )
    processes = Processes(chosen_device(device))
    for line in skipped:
        say(line)
    models = models_of(model, adapter, processes.device, lora)
    opened, arms = open_benchmark(models, folder, benchmark, processes)
    bar = functools.partial(progress, shown=processes.main)
    draw_benchmark(models, opened, arms, benchmark, processes, bar)
    del models  # their memory is the metrics' now
    found = score_benchmark(opened, arms, benchmark, processes, bar)
    processes.wait()
    if not processes.main:
        return
    results = write_benchmark(found, f"DPT on {source.about['source']}")
    show(metric_table(results, found.columns), notes(results))
    emit(f"tables: {folder / 'table.md'}, {folder / 'table.tex'}")
    emit(f"pictures side by side: {folder / 'index.html'}")
