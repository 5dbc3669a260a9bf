"""`dpt train tuning`: stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

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


def tuning(
    model: Path,
    probed: Path,
    /,
    *,
    data: DataOptions,
    output: Output,
    loop: LoopOptions = LoopOptions(),
    phrase_encoder: Phrases = None,
    size: Positive = 512,
    rank: Positive = 4,
    feed_forward: Annotated[bool, Parameter(negative=())] = False,
    freeze_adapter: Annotated[bool, Parameter(negative=())] = False,
    device: TrainDevice = "auto",
) -> None:
    """Stage 2: train the adapter on, together with a LoRA of the model.

    For example:

        dpt train tuning MODEL_DIR runs/probing/adapter.safetensors \\
            --matching captions.jsonl --grounding captions.jsonl \\
            --images pictures --output runs/tuning

    Args:
        model: Diffusers model directory (SD 1.x or 2.x).
        probed: The adapter of stage 1.
        size: Side of the pictures in pixels.
        rank: Rank of the LoRA.
        feed_forward: Update the feed-forward layers beside the attention projections.
        freeze_adapter: Train the LoRA alone and leave the adapter as it is.
    """
    device = training_device(device)
    from ...training import stages
    from ...training.lora import ATTENTION, FEED_FORWARD

    config = loop.stage(
        stages.TUNING, device, size=size, rank=rank, freeze_adapter=freeze_adapter,
        layers=ATTENTION + FEED_FORWARD if feed_forward else ATTENTION,
    )  # fmt: skip
    carry_out(stages.tune, model, probed, data.sources(), output, config, phrase_encoder, device)
