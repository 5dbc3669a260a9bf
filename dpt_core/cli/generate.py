"""`dpt generate`, on any diffusers model directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from . import emit
from .loading import chosen_device, load_pipeline, models_of
from .options import (
    CorrectionOptions,
    Device,
    Lora,
    Natural,
    Positive,
    SamplingOptions,
    SearchOptions,
    correction_of,
    search_of,
)
from .progress import progress


def generate(
    model: Path,
    prompt: str,
    /,
    *,
    adapter: Path | None = None,
    out: Path = Path("pictures"),
    count: Positive = 4,
    seed: Natural = 0,
    correction: CorrectionOptions = CorrectionOptions(),
    search: SearchOptions = SearchOptions(),
    lora: Lora = 1.0,
    sampling: SamplingOptions = SamplingOptions(),
    width: Positive | None = None,
    height: Positive | None = None,
    batch_size: Positive = 1,
    device: Device = "auto",
) -> None:
    """Draw a prompt with LoRA, self-correction and search: pictures SEED.png in a folder.

    For example:

        dpt generate MODEL_DIR "a red cube" --adapter dpt.safetensors
        dpt generate MODEL_DIR "three dogs" --adapter dpt.safetensors \\
            --preset fast --lora 0
        dpt generate MODEL_DIR "two birds" --adapter dpt.safetensors --candidates 4

    Args:
        model: A diffusers model directory: SD 1.x, 2.x, SDXL, SD 3, Flux, Qwen-Image or Z-Image.
        prompt: What to draw.
        adapter: A DPT checkpoint: .safetensors or published .bin. Without one the model draws
            plainly.
        out: Folder for the pictures.
        count: How many pictures, each of them searched for where there are candidates.
        seed: Seed of the first picture; of a search, of its first candidate.
        width: Of the pictures in pixels; by default the model's own.
        height: Of the pictures; by default the width.
        batch_size: Pictures drawn together.
    """
    wanted, looking = correction_of(correction), search_of(search)
    if looking and adapter is None:
        raise ValueError("a search chooses by the adapter's score: give one with --adapter")
    settings = sampling.sampling(wanted if adapter else None)
    if sides := [each for each in (height, width) if each]:
        settings = replace(settings, size=(sides[0], sides[-1]))
    device = chosen_device(device)
    if adapter is None:
        pipeline, network = load_pipeline(model, device), None
    else:
        models = models_of(model, adapter, device, lora)
        pipeline, network = models.tuned, models.adapter
    from ..generation import generate as draw
    from ..png import save_png

    apart = looking.candidates * looking.tries if looking else 1  # no candidate is drawn twice
    seeds = range(seed, seed + count * apart, apart)
    with progress("drawing", count) as advance:
        for first in range(0, count, batch_size):
            some = seeds[first : first + batch_size]
            drawn = draw(pipeline, [prompt] * len(some), some, settings, network, looking)
            pictures = zip(drawn.seeds, drawn.pictures, strict=True)
            for index, (number, picture) in enumerate(pictures):
                path = out / f"{number:05d}.png"
                about = {"prompt": prompt, "seed": str(number), "dpt": repr(settings)}
                save_png(picture, path, about)
                last = drawn.scores[-1, index] if len(drawn.scores) else None
                emit(f"{path}" + ("" if last is None else f"  last score {last:.4f}"))
            advance(len(some))
