"""`dpt score`, on any diffusers model directory."""

from __future__ import annotations

from pathlib import Path

from . import emit
from .loading import chosen_device, models_of
from .options import Adapter, Device, Lora, MeasureOptions, Natural


def score(
    model: Path,
    prompt: str,
    /,
    *images: Path,
    adapter: Adapter,
    lora: Lora = 1.0,
    measure: MeasureOptions = MeasureOptions(),
    seed: Natural = 0,
    device: Device = "auto",
) -> None:
    """Print the alignment score of each picture; scores of one prompt rank pictures.

    For example:

        dpt score MODEL_DIR "a red cube" a.png b.png \\
            --adapter dpt.safetensors

    Args:
        model: A diffusers model directory: SD 1.x, 2.x, SDXL, SD 3, Flux, Qwen-Image or Z-Image.
        prompt: The text to compare with.
        images: Pictures to score.
        seed: Seed of the noise.
    """
    if not images:
        raise ValueError("nothing to score: name one or more pictures after the prompt")
    from ..png import read_picture

    pictures = [read_picture(path) for path in images]  # first: the model is the larger file
    models = models_of(model, adapter, chosen_device(device), lora)
    from ..reading import alignment_scores

    for path, picture in zip(images, pictures, strict=True):
        found = alignment_scores(
            models.tuned, models.adapter, picture[None], [prompt], measure.timestep,
            measure.draws, seed,
        )  # fmt: skip
        emit(f"{found.item():.4f}  {path}")
