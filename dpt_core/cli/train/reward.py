"""`dpt train reward`: a LoRA from prompts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ...training.tuning_settings import ERRORS
from ..options import Positive
from .options import LoopOptions, Output, TrainDevice, carry_out, training_device


def reward(
    model: Path,
    adapter: Path,
    /,
    *,
    prompts: Path,
    output: Output,
    draw_steps: Positive = 20,
    guidance: float = 7.5,
    loop: LoopOptions = LoopOptions(),
    rounds: Positive = 1,
    candidates: Positive = 8,
    rank: Positive = 16,
    errors: float = ERRORS,
    control: Annotated[bool, Parameter(negative=())] = False,
    device: TrainDevice = "auto",
) -> None:
    """Tune a LoRA on the model's own pictures, weighted by their scores: prompts are enough.

    For example:

        dpt train reward MODEL_DIR runs/probing/adapter.safetensors \\
            --prompts prompts.txt --output runs/reward

    Args:
        model: Diffusers model directory (SD 1.x or 2.x).
        adapter: The DPT checkpoint that judges the pictures; a LoRA in it is not used.
        prompts: A text file with a prompt in each line, or .jsonl with prompt and, if you like,
            negatives: texts that a good picture does not show. Every tenth prompt is set aside to
            tell whether a round helped.
        draw_steps: Denoising steps of a drawn picture; fewer than one uses later will do.
        guidance: Classifier-free guidance scale, above 1.
        rounds: Of drawing, scoring and tuning; they end when one did not help.
        candidates: Pictures per prompt and round.
        rank: Rank of the LoRA.
        errors: How much the model's own denoising error of a picture weighs against its score; 0
            does not read it.
        control: Learn all pictures alike, whatever their score, to compare with.
    """
    device = training_device(device)
    from ...generation import Sampling
    from ...training.reward_task import RewardConfig
    from ...training.reward_tuning import tune_from_folder

    config = RewardConfig(
        loop=loop.over(RewardConfig().loop, device),
        rounds=rounds, candidates=candidates, rank=rank, errors=errors,
        control=control, sampling=Sampling(draw_steps, guidance),
    )  # fmt: skip
    carry_out(tune_from_folder, model, adapter, prompts, output, config, device)
