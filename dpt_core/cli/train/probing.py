"""`dpt train probing`: stage 1."""

from __future__ import annotations

from pathlib import Path

from ..options import Positive
from .options import (
    DataOptions,
    LoopOptions,
    Output,
    Phrases,
    TrainDevice,
    carry_out,
    training_device,
)


def probing(
    model: Path,
    /,
    *,
    data: DataOptions,
    output: Output,
    loop: LoopOptions = LoopOptions(),
    phrase_encoder: Phrases = None,
    size: Positive = 512,
    tap: str = "auto",
    patch: Positive = 1,
    device: TrainDevice = "auto",
) -> None:
    """Stage 1: train an adapter on a frozen model.

    For example:

        dpt train probing MODEL_DIR --matching captions.jsonl \\
            --grounding captions.jsonl --images pictures \\
            --latents runs/latents --output runs/probing

    Args:
        model: Diffusers model directory: SD 1.x, 2.x, SDXL, SD 3, Flux, Qwen-Image or Z-Image.
        size: Side of the pictures in pixels.
        tap: Where the adapter reads the network: up1 of a UNet, block5 of a transformer, or auto.
        patch: Side of the squares of cells it takes as one.
    """
    device = training_device(device)
    from ...training import stages

    config = loop.stage(stages.PROBING, device, size=size, tap=tap, patch=patch)
    carry_out(stages.probe, model, data.sources(), output, config, phrase_encoder, device)
