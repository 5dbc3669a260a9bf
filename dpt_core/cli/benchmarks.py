"""`dpt evaluate generation` and `discrimination`: the published benchmarks, on any model.

On many processes: `accelerate launch --num_processes 8 -m dpt_core.cli evaluate generation …`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..correction import Correction
from .common import (
    Device,
    Draws,
    End,
    Every,
    Guidance,
    InnerSteps,
    Mode,
    Rule,
    Start,
    Steps,
    Strength,
    Timestep,
    load_pipeline,
    quiet,
    user_errors,
)
from .progress import progress

if TYPE_CHECKING:
    from ..evaluation.arms import Models
    from ..evaluation.discrimination_benchmark import Asked
    from ..evaluation.generation_benchmark import Benchmark
    from ..evaluation.processes import Processes

Model = Annotated[Path, typer.Argument(help="A diffusers model directory: SD 1.x, 2.x or SDXL.")]
Folder = Annotated[
    Path, typer.Argument(help="Where all results go; run again to go on after a stop.")
]
Adapter = Annotated[Path, typer.Option(help="A DPT checkpoint: .safetensors or published .bin.")]
Lora = Annotated[float, typer.Option(help="Strength of the checkpoint's LoRA; 0 is off.")]
Batch = Annotated[int, typer.Option(min=1, help="How many at a time, per process.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first so many; 0 for all.")]


def generation(
    model: Model,
    folder: Folder,
    prompts: Annotated[
        str, typer.Option(help="cc-500, abc-6k, coco-nss1k, shapes, or a file with one per line.")
    ],
    adapter: Adapter,
    prompts_path: Annotated[
        Path | None, typer.Option(help="The benchmark's file, or the folder where it lies.")
    ] = None,
    limit: Limit = 0,
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other pictures.")] = 0,
    arm: Annotated[
        list[str], typer.Option(help="Repeat for several of base, self-correction, lora, both, "
                                "best-of; all if not given. The first is compared with.")
    ] = [],  # noqa: B006
    strength: Strength = Correction.strength,
    lora: Lora = 1.0,
    start: Start = Correction.start_percent,
    end: End = Correction.end_percent,
    every: Every = Correction.every_n_steps,
    rule: Rule = Correction.step,
    inner_steps: InnerSteps = Correction.inner_steps,
    mode: Mode = Correction.mode,
    best_of: Annotated[
        int, typer.Option(min=0, help="Also draw so many and keep the best by score; 0: do not.")
    ] = 0,
    steps: Steps = 50,
    guidance: Guidance = 7.5,
    timestep: Timestep = 500,
    draws: Draws = 4,
    clip: Annotated[Path | None, typer.Option(help="Folder of a CLIP model.")] = None,
    blip: Annotated[Path | None, typer.Option(help="Folder of a BLIP retrieval model.")] = None,
    inception: Annotated[
        Path | None, typer.Option(help="torch-fidelity's Inception weights, for FID and IS.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Real pictures, for FID.")] = None,
    batch_size: Batch = 8,
    device: Device = "cpu",
) -> None:  # fmt: skip
    """Draw a benchmark's prompts with and without LoRA and self-correction, and score them."""
    with user_errors():
        from ..evaluation.arms import Measure
        from ..evaluation.benchmarks import open_prompts
        from ..evaluation.catalogue import MetricWeights
        from ..evaluation.generation_benchmark import Benchmark
        from ..evaluation.processes import Processes
        from ..generation import Sampling

        correction = Correction(strength, start, end, every, mode, rule, inner_steps)
        sampling = Sampling(steps, guidance, correction)
        weights = MetricWeights(clip, blip, inception, reference)
        skipped = weights.check()
        source = open_prompts(prompts, prompts_path, seed, limit or None)
        benchmark = Benchmark(
            source, sampling, Measure(timestep, draws), batch_size, best_of, tuple(arm), weights
        )
        quiet()
        processes = Processes(device)
        if processes.main:
            typer.echo("\n".join(skipped))
        _generation(model, folder, adapter, lora, benchmark, processes)


def discrimination(
    model: Model,
    folder: Folder,
    adapter: Adapter,
    images: Annotated[Path, typer.Option(help="Folder that image names are relative to.")],
    matching: Annotated[
        Path | None, typer.Option(help="Captions and hard negatives: .tsv or .jsonl.")
    ] = None,
    grounding: Annotated[
        Path | None, typer.Option(help="Phrases and boxes: RefCOCO .json or .jsonl.")
    ] = None,
    lora: Lora = 1.0,
    timestep: Annotated[
        list[int], typer.Option(min=0, max=999, help="Noise level; repeat for several.")
    ] = [500],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and the drawn negatives.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 512,
    limit: Limit = 0,
    batch_size: Batch = 8,
    device: Device = "cpu",
) -> None:
    """Accuracy of image-text matching and of referring expressions, with and without the LoRA."""
    with user_errors():
        quiet()
        from ..evaluation.discrimination_benchmark import Asked
        from ..evaluation.processes import Processes

        if matching is None and grounding is None:
            raise ValueError("nothing to evaluate: give --matching, --grounding or both")
        asked = Asked(tuple(timestep), seed, size, batch_size, limit)
        processes = Processes(device)
        models = _models(model, adapter, processes.device, lora)
        _discrimination(models, folder, asked, matching, grounding, images, processes)


def _generation(
    model: Path,
    folder: Path,
    adapter: Path,
    lora: float,
    benchmark: Benchmark,
    processes: Processes,
) -> None:
    from ..evaluation.benchmark_report import notes, write_benchmark
    from ..evaluation.generation_benchmark import draw_benchmark, open_benchmark, score_benchmark
    from ..evaluation.tables import metric_table

    models = _models(model, adapter, processes.device, lora)
    opened, arms = open_benchmark(models, folder, benchmark, processes)
    bar = functools.partial(progress, shown=processes.main)
    draw_benchmark(models, opened, arms, benchmark, processes, bar)
    del models  # their memory is the metrics' now
    found = score_benchmark(opened, arms, benchmark, processes, bar)
    processes.wait()
    if not processes.main:
        return
    results = write_benchmark(found, f"DPT on {benchmark.source.about['source']}")
    _show(metric_table(results, found.columns), notes(results))
    typer.echo(f"tables: {folder / 'table.md'}, {folder / 'table.tex'}")
    typer.echo(f"pictures side by side: {folder / 'index.html'}")


def _discrimination(
    models: Models,
    folder: Path,
    asked: Asked,
    matching: Path | None,
    grounding: Path | None,
    images: Path,
    processes: Processes,
) -> None:
    from ..evaluation import discrimination_benchmark as bench
    from ..evaluation.run import missing

    data = {}
    if matching is not None:
        data[bench.question("matching", matching)] = bench.open_matching(matching, images, asked)
    if grounding is not None:
        data[bench.question("grounding", grounding)] = bench.open_grounding(
            grounding, images, asked
        )
    opened = bench.open_answers(models, folder, asked, list(data), processes)
    left = sum(
        len(chosen)
        for kind, examples in data.items()
        for _, _, chosen in missing(
            [kind], asked.places(examples), opened, asked.batch_size, processes.share
        )
    )
    with progress("reading", left, shown=processes.main) as advance:
        bench.answer(models, opened, asked, data, advance, processes.share)
    processes.wait()
    if not processes.main:
        return
    rows, notes = bench.write_answers(opened, asked, list(data))
    _show(rows, notes)
    typer.echo(f"tables: {folder / 'table.md'}, {folder / 'table.tex'}")


def _models(model: Path, adapter: Path, device: str, lora: float) -> Models:
    from ..checkpoint import load_checkpoint
    from ..evaluation.arms import Models

    checkpoint = load_checkpoint(adapter)  # first: it is the smaller file
    return Models.of(load_pipeline(model, device), checkpoint, device, lora)


def _show(rows: list[list[str]], notes: list[str]) -> Any:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..evaluation.tables import BREAK

    heading, *rest = rows
    shown = Table(*heading, show_lines=True)
    for row in rest:
        shown.add_row(*(escape(cell.replace(BREAK, "\n")) for cell in row))
    Console().print(shown)
    typer.echo("\n".join(notes))
