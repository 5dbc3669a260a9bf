"""Score-weighted tuning: a LoRA that makes a model draw what the adapter finds right.

Rounds of draw, score, tune. Several pictures are drawn for each prompt; the frozen adapter scores
them on the untuned model, whose own denoising error counts, too (:mod:`.rewards`); the LoRA learns
to make the better ones likelier and the worse ones less likely
(:mod:`dpt_core.losses.score_weighted`), and is strengthened as far as that pays. Needs prompts
only.

A run lives in a folder: `round-N/drawn` (a file for each few prompts), `round-N/tuning` (a run of
:mod:`dpt_core.training.loop`), `round-N/dpt.safetensors` (as learned) and `development.json`.
Whatever is there is not made again.
"""

from __future__ import annotations

import copy
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..distributed import process_state
from ..files import write_json, write_tensors
from ..generation import generate_latents, with_lora
from ..host_names import stored
from ..lora import strengthened
from .backbone import Backbone
from .loop import train
from .lora import add_lora, load_lora, lora_of
from .reward_task import METHOD, RewardConfig, ScoredPictures, ScoreWeightedTask
from .rewards import Reading, RewardPrompt, read_prompts, reward_errors, reward_scores

logger = logging.getLogger(__name__)

CHECKPOINT = "dpt.safetensors"

DEVELOPMENT = 10
"""Every so many-th prompt is not trained on but tells whether a round helped."""

Figure = Callable[[Any], float]
"""How well a pipeline draws; larger is better."""


def tune_by_reward(
    pipeline: Any,
    checkpoint: Checkpoint,
    prompts: Sequence[RewardPrompt],
    folder: str | Path,
    config: RewardConfig,
    figure: Figure | None = None,
) -> Checkpoint:
    """Tune a LoRA on a model's own pictures; called again, it goes on.

    Args:
        pipeline: a diffusers pipeline of Stable Diffusion 1.x or 2.x, not tuned; unchanged.
        checkpoint: whose adapter reads; its LoRA is not used.
        prompts: what is drawn.
        folder: where the run lives.
        config: settings.
        figure: on development prompts; it chooses the strength of the first round's LoRA, and
            rounds end when it falls. Without one all are run, and the last is kept as learned.

    Returns:
        The adapter with the LoRA of the best round.

    Raises:
        ValueError: the folder holds a run with other settings, or model and adapter do not fit.
        dpt_core.training.loop.Interrupted: stopped; call again to go on.
    """
    folder = Path(folder)
    _settle(folder, prompts, config)
    best, best_figure = {}, None
    lora: dict[str, torch.Tensor] = {}
    for number in range(1, config.rounds + 1):
        place = folder / f"round-{number}"
        made = place / CHECKPOINT
        if not made.exists():
            drawn = _draw(pipeline, checkpoint, lora, prompts, place / "drawn", config, number)
            tuned = _tune(pipeline, lora, drawn, place / "tuning", config)
            if process_state().is_main_process:
                save_checkpoint(made, Checkpoint(checkpoint.config, checkpoint.adapter, tuned))
            process_state().wait_for_everyone()
        lora = load_checkpoint(made).lora
        value = None
        if figure is not None:
            # What later rounds change cannot be strengthened without the rest.
            strengths = config.strengths if number == 1 else (1.0,)
            lora, value = _strongest(figure, pipeline, lora, place, strengths)
        if value is not None and best_figure is not None and value < best_figure:
            logger.info("round %d draws worse (%.4f < %.4f): stopped", number, value, best_figure)
            break
        best, best_figure = lora, value
    return Checkpoint(checkpoint.config, checkpoint.adapter, best)


def tune_from_folder(
    model: Path, adapter: Path, prompts: Path, output: Path, config: RewardConfig, device: Any
) -> Path:
    """As :func:`tune_by_reward`, of files; every tenth prompt is the development figure's.

    Args:
        model: diffusers model directory, Stable Diffusion 1.x or 2.x.
        adapter: the checkpoint whose adapter reads.
        prompts: see :func:`~dpt_core.training.rewards.read_prompts`.
        output: folder of the run.
        config: settings.
        device: where to compute.

    Returns:
        The checkpoint written, `output/dpt.safetensors`.

    Raises:
        ValueError: a file cannot be used, or see :func:`tune_by_reward`.
    """
    from diffusers import DiffusionPipeline

    checkpoint, read = load_checkpoint(adapter), read_prompts(prompts)
    pipeline = DiffusionPipeline.from_pretrained(model, local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    checkpoint.adapter.to(device)
    aside, rest = read[::DEVELOPMENT], [p for n, p in enumerate(read) if n % DEVELOPMENT]
    if not rest:
        raise ValueError(f"{prompts}: expected at least 2 prompts, one of them to tell by; got 1")

    def figure(tuned: Any) -> float:
        return mean_score(pipeline, tuned, checkpoint, aside, config)

    made = tune_by_reward(pipeline, checkpoint, rest, output, config, figure)
    path = output / CHECKPOINT
    if process_state().is_main_process:
        save_checkpoint(path, made)
    return path


def mean_score(
    pipeline: Any,
    tuned: Any,
    checkpoint: Checkpoint,
    prompts: Sequence[RewardPrompt],
    config: RewardConfig,
) -> float:
    """Mean score of one plain picture of each prompt, from seeds that no round draws from."""
    found = []
    for first in range(0, len(prompts), config.prompts_at_once):
        some = prompts[first : first + config.prompts_at_once]
        seeds = [
            random.Random(f"development-{index}").randrange(2**31)
            for index in range(first, first + len(some))
        ]
        texts = [prompt.text for prompt in some]
        latents = generate_latents(tuned, texts, seeds, config.sampling)
        found.append(
            reward_scores(pipeline, checkpoint.adapter, latents, some, config.levels, seed=first)
        )
    return float(torch.cat(found).mean())


def _settle(folder: Path, prompts: Sequence[RewardPrompt], config: RewardConfig) -> None:
    """Keep the settings, or refuse others than those that are there."""
    told = {"method": METHOD, "prompts": [asdict(p) for p in prompts], **asdict(config)}
    ours = json.loads(json.dumps(told))
    path = folder / "config.json"
    with process_state().main_process_first():
        if not path.exists():
            write_json(path, ours)
    theirs = json.loads(path.read_text(encoding="utf-8"))
    if changed := [key for key in ours if key != "rounds" and ours[key] != theirs.get(key)]:
        raise ValueError(
            f"{folder} holds a run with other settings ({', '.join(changed)}): take the same "
            "settings to go on with it, or another folder"
        )


def _draw(
    pipeline: Any,
    checkpoint: Checkpoint,
    lora: dict[str, torch.Tensor],
    prompts: Sequence[RewardPrompt],
    folder: Path,
    config: RewardConfig,
    number: int,
) -> ScoredPictures:
    """Draw and score what is missing of a round; processes take turns at the files."""
    state, drawing = process_state(), with_lora(pipeline, lora)
    parts = range(0, len(prompts), config.prompts_at_once)
    for part in parts[state.process_index :: state.num_processes]:
        path = _part(folder, part)
        if not path.exists():
            some = prompts[part : part + config.prompts_at_once]
            latents, found = _candidates(pipeline, drawing, checkpoint, some, config, number, part)
            write_tensors(path, {"latents": latents.half(), **found._asdict()})
            logger.info("round %d: %d of %d prompts", number, part + len(some), len(prompts))
    state.wait_for_everyone()
    made = [load_file(_part(folder, part)) for part in parts]
    latents, *read = (
        torch.cat([each[key] for each in made]) for key in ("latents", *Reading._fields)
    )
    return ScoredPictures(latents, Reading(*read).joined(config.errors), prompts)


def _part(folder: Path, part: int) -> Path:
    return folder / f"{part:06d}.safetensors"


def _candidates(
    pipeline: Any,
    drawing: Any,
    checkpoint: Checkpoint,
    prompts: Sequence[RewardPrompt],
    config: RewardConfig,
    number: int,
    first: int,
) -> tuple[torch.Tensor, Reading]:
    """Latents `[P, K, C, h, w]` of a few prompts, and how good they are, `[P, K]`.

    No candidate is corrected: correction raises the score of wrong pictures too.
    """
    rows = [prompt for prompt in prompts for _ in range(config.candidates)]
    seeds = [
        random.Random(f"reward-{config.loop.seed}-{number}-{index}").randrange(2**31) + candidate
        for index in range(first, first + len(prompts))
        for candidate in range(config.candidates)
    ]
    latents = generate_latents(drawing, [row.text for row in rows], seeds, config.sampling)
    scores = reward_scores(pipeline, checkpoint.adapter, latents, rows, config.levels, seed=first)
    read = Reading.of(
        scores, lambda: reward_errors(pipeline, latents, rows, seed=first), config.errors
    )
    shape = (len(prompts), -1)
    latents, *read = (each.unflatten(0, shape).cpu() for each in (latents, *read))
    return latents, Reading(*read)


def _tune(
    pipeline: Any,
    lora: dict[str, torch.Tensor],
    drawn: ScoredPictures,
    folder: Path,
    config: RewardConfig,
) -> dict[str, torch.Tensor]:
    """Train the LoRA on from where the round before left it."""
    backbone = Backbone.of(pipeline)
    untuned = Backbone.of(with_lora(pipeline, lora)).network
    network = copy.deepcopy(backbone.network)
    torch.manual_seed(config.loop.seed)
    add_lora(network, config.rank, config.layers)
    if lora:
        load_lora(network, lora)
    task = ScoreWeightedTask(backbone.with_network(network), untuned, config)
    network = train(task, drawn, config.loop, folder, collate=list).network
    return stored(network, lora_of(network))


def _strongest(
    figure: Figure,
    pipeline: Any,
    lora: dict[str, torch.Tensor],
    place: Path,
    strengths: Sequence[float],
) -> tuple[dict[str, torch.Tensor], float]:
    """A round's LoRA at its best strength, and the development figure of that; kept beside it."""
    path = place / "development.json"
    with process_state().main_process_first():
        if not path.exists():
            tried = {each: figure(with_lora(pipeline, lora, each)) for each in strengths}
            logger.info("development figure by strength: %s", tried)
            write_json(path, {"strengths": list(tried), "figures": list(tried.values())})
    found = json.loads(path.read_text(encoding="utf-8"))
    value, strength = max(zip(found["figures"], found["strengths"], strict=True))
    return strengthened(lora, strength), value
