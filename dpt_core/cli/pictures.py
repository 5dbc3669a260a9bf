"""`dpt generate` and `dpt score`, on any diffusers model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    import numpy as np

    from ..evaluation.arms import Models

GRID = 64
"""Side in pixels of what a UNet of four levels and its VAE can divide."""

Model = Annotated[Path, typer.Argument(help="A diffusers model directory: SD 1.x, 2.x or SDXL.")]
Adapter = Annotated[Path, typer.Option(help="A DPT checkpoint: .safetensors or published .bin.")]
Lora = Annotated[float, typer.Option(help="Strength of the checkpoint's LoRA; 0 is off.")]


def generate(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    adapter: Annotated[
        Path | None, typer.Option(help="A DPT checkpoint; without one the model draws plainly.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    strength: Strength = Correction.strength,
    lora: Lora = 1.0,
    start: Start = Correction.start_percent,
    end: End = Correction.end_percent,
    every: Every = Correction.every_n_steps,
    rule: Rule = Correction.step,
    inner_steps: InnerSteps = Correction.inner_steps,
    mode: Mode = Correction.mode,
    steps: Steps = 20,
    guidance: Guidance = 7.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 1,
    device: Device = "cpu",
) -> None:
    """Draw a prompt with LoRA and self-correction: pictures SEED.png in a folder."""
    with user_errors():
        quiet()
        from ..generation import Sampling
        from ..generation import generate as draw
        from ..png import save_png

        correction = Correction(strength, start, end, every, mode, rule, inner_steps)
        sampling = Sampling(steps, guidance, correction if adapter else None)
        if adapter is None:
            pipeline, network = load_pipeline(model, device), None
        else:
            models = _models(model, adapter, device, lora)
            pipeline, network = models.tuned, models.adapter
        out.mkdir(parents=True, exist_ok=True)
        seeds = range(seed, seed + count)
        for first in range(0, count, batch_size):
            some = seeds[first : first + batch_size]
            drawn = draw(pipeline, [prompt] * len(some), some, sampling, network)
            for place, (number, picture) in enumerate(zip(some, drawn.pictures, strict=True)):
                path = out / f"{number:05d}.png"
                about = {"prompt": prompt, "seed": str(number), "dpt": repr(sampling)}
                save_png(picture, path, about)
                last = drawn.scores[-1, place] if len(drawn.scores) else None
                typer.echo(f"{path}" + ("" if last is None else f"  last score {last:.4f}"))


def score(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="The text to compare with.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures to score.")],
    adapter: Adapter,
    lora: Lora = 1.0,
    timestep: Timestep = 500,
    draws: Draws = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    device: Device = "cpu",
) -> None:
    """Print the alignment score of each picture; scores of one prompt rank pictures."""
    with user_errors():
        pictures = [_read(path) for path in images]
        quiet()
        from ..reading import alignment_scores

        models = _models(model, adapter, device, lora)
        for path, picture in zip(images, pictures, strict=True):
            found = alignment_scores(
                models.tuned, models.adapter, picture[None], [prompt], timestep, draws, seed
            )
            typer.echo(f"{found.item():.4f}  {path}")


def _models(model: Path, adapter: Path, device: str, lora: float) -> Models:
    from ..checkpoint import load_checkpoint
    from ..evaluation.arms import Models

    checkpoint = load_checkpoint(adapter)  # first: it is the smaller file
    return Models.of(load_pipeline(model, device), checkpoint, device, lora)


def _read(path: Path) -> np.ndarray:
    """A picture `[H, W, 3]` uint8, scaled to sides that the model can divide.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture") from error
    sides = [max(GRID, round(side / GRID) * GRID) for side in image.size]
    if sides != list(image.size):
        image = image.resize(sides, Image.Resampling.LANCZOS)
    return np.asarray(image)
