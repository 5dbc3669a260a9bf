"""`dpt evaluate discrimination`: published benchmarks of discrimination, on any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .. import emit
from ..loading import chosen_device, models_of
from ..options import Adapter, Device, Lora, Natural, Positive
from ..tables import show
from .running import answers

Timesteps = Annotated[list[int] | None, Parameter(validator=Number(gte=0, lte=999))]


def discrimination(
    model: Path,
    folder: Path,
    /,
    *,
    adapter: Adapter,
    images: Path,
    matching: Path | None = None,
    grounding: Path | None = None,
    lora: Lora = 1.0,
    timestep: Timesteps = None,
    seed: Natural = 0,
    size: Positive = 512,
    limit: Natural = 0,
    batch_size: Positive = 8,
    device: Device = "auto",
) -> None:
    """Accuracy of image-text matching and of referring expressions, with and without the LoRA.

    For example:

        dpt evaluate discrimination MODEL_DIR runs/refcoco \\
            --adapter dpt.safetensors --images coco --grounding refcoco.json \\
            --timestep 300 --timestep 500

    Args:
        model: A diffusers model directory: SD 1.x, 2.x or SDXL.
        folder: Where all results go; run again to go on after a stop.
        images: Folder that image names are relative to.
        matching: Captions and hard negatives: .tsv or .jsonl.
        grounding: Phrases and boxes: RefCOCO .json or .jsonl.
        timestep: Noise level, 0 to 999; repeat for several. [default: 500]
        seed: Of the noise and the drawn negatives.
        size: Side of the pictures in pixels.
        limit: Only the first so many; 0 for all.
        batch_size: How many at a time, per process.
    """
    if matching is None and grounding is None:
        raise ValueError("nothing to evaluate: give --matching, --grounding or both")
    from ...evaluation import discrimination as reading
    from ...evaluation.processes import Processes

    asked = reading.Asked(tuple(timestep or (500,)), seed, size, batch_size, limit)
    processes = Processes(chosen_device(device))
    models = models_of(model, adapter, processes.device, lora)
    data = {}
    if matching is not None:
        kind = reading.question(reading.MATCHING, matching)
        data[kind] = reading.open_matching(matching, images, asked)
    if grounding is not None:
        kind = reading.question(reading.GROUNDING, grounding)
        data[kind] = reading.open_grounding(grounding, images, asked)
    found = answers(models, folder, asked, data, processes)
    if found is not None:
        show(found.rows, found.notes)
        emit(f"tables: {folder / 'table.md'}, {folder / 'table.tex'}")
