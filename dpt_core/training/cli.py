"""`dpt train`: adapters for one's own model, and the demo model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train an adapter, or remake the demo model.")

Model = Annotated[Path, typer.Argument(help="Diffusers model directory (SD 1.x or 2.x).")]
Matching = Annotated[Path, typer.Option(help="Captions and hard negatives: .jsonl or .tsv.")]
Grounding = Annotated[Path, typer.Option(help="Phrases and boxes: .jsonl or RefCOCO .json.")]
Images = Annotated[Path, typer.Option(help="Folder that image names are relative to.")]
Output = Annotated[Path, typer.Option(help="Folder of the run. Run again to go on.")]
Latents = Annotated[
    Path | None, typer.Option(help="Folder for latents, computed once; recommended.")
]
Phrases = Annotated[
    Path | None, typer.Option(help="A copy of roberta-base, for the alignment loss.")
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps; published value if not given.")]
Batch = Annotated[int | None, typer.Option(help="Examples per process and micro-step.")]
Accumulate = Annotated[int | None, typer.Option(help="Micro-steps per optimiser step.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate.")]
Precision = Annotated[str | None, typer.Option(help="no, fp16 or bf16.")]
Size = Annotated[int, typer.Option(help="Side of the pictures in pixels.")]
SaveEvery = Annotated[int | None, typer.Option(help="Steps between checkpoints.")]
Workers = Annotated[int, typer.Option(help="Processes that read data.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Train on the CPU even where there is a GPU.")]


@app.command()
def probing(
    model: Model,
    matching: Matching,
    grounding: Grounding,
    images: Images,
    output: Output,
    latents: Latents = None,
    phrase_encoder: Phrases = None,
    steps: Steps = None,
    batch_size: Batch = None,
    accumulate: Accumulate = None,
    learning_rate: Rate = None,
    precision: Precision = None,
    size: Size = 512,
    save_every: SaveEvery = None,
    workers: Workers = 0,
    tap: Annotated[str, typer.Option(help="Where the adapter reads the UNet.")] = "up1",
    patch: Annotated[int, typer.Option(help="Side of the squares of cells it takes as one.")] = 1,
    cpu: Cpu = False,
) -> None:
    """Stage 1: train an adapter on a frozen model."""
    from . import stages

    device = _device(cpu)
    loop = _settings(
        stages.PROBING.loop, steps, batch_size, accumulate, learning_rate, precision, save_every,
        workers, device,
    )  # fmt: skip
    config = replace(stages.PROBING, loop=loop, size=size, tap=tap, patch=patch)
    sources = stages.Sources(matching, grounding, images, latents)
    _report(stages.probe, model, sources, output, config, phrase_encoder, device)


@app.command()
def tuning(
    model: Model,
    probed: Annotated[Path, typer.Argument(help="The adapter of stage 1.")],
    matching: Matching,
    grounding: Grounding,
    images: Images,
    output: Output,
    latents: Latents = None,
    phrase_encoder: Phrases = None,
    steps: Steps = None,
    batch_size: Batch = None,
    accumulate: Accumulate = None,
    learning_rate: Rate = None,
    precision: Precision = None,
    size: Size = 512,
    save_every: SaveEvery = None,
    workers: Workers = 0,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = 4,
    cpu: Cpu = False,
) -> None:
    """Stage 2: train the adapter on, together with a LoRA of the model."""
    from . import stages

    device = _device(cpu)
    loop = _settings(
        stages.TUNING.loop, steps, batch_size, accumulate, learning_rate, precision, save_every,
        workers, device,
    )  # fmt: skip
    config = replace(stages.TUNING, loop=loop, size=size, rank=rank)
    sources = stages.Sources(matching, grounding, images, latents)
    _report(stages.tune, model, probed, sources, output, config, phrase_encoder, device)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the runs live. Run again to go on.")],
    until: Annotated[str, typer.Option(help="Last stage to run.")] = "files",
) -> None:
    """Remake the demo model: some hours on two CPU cores, in as many runs as you like."""
    from ..demo.kitchen import Kitchen

    _report(lambda: Kitchen(folder).make(until))


def _settings(
    published: object,
    steps: int | None,
    batch_size: int | None,
    accumulate: int | None,
    learning_rate: float | None,
    precision: str | None,
    save_every: int | None,
    workers: int,
    device: object,
) -> object:
    """The published settings with what the user changed."""
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "precision": precision or ("no" if device.type == "cpu" else None),
        "save_every": save_every,
        "workers": workers,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        return replace(published, **changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _device(cpu: bool) -> object:
    """This process's device, as accelerate deals them out."""
    from ..distributed import process_state

    return process_state(cpu).device


def _report(work, *arguments) -> None:
    """Run, and say what went wrong without a traceback."""
    from .loop import Interrupted

    try:
        made = work(*arguments)
    except Interrupted as stopped:
        typer.echo(str(stopped))
        raise typer.Exit(130) from stopped
    except (OSError, ValueError, FloatingPointError) as error:
        raise typer.BadParameter(str(error)) from error
    if made is not None:
        typer.echo(f"wrote {made}")
