"""The stages that probe and tune the demo model, and the files that ship."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Subset

from ..adapter import DiscriminativeAdapter
from ..checkpoint import Checkpoint, save_checkpoint
from ..distributed import slow_bf16
from ..files import write_tensors
from ..losses import LossWeights
from ..training.backbone import Backbone
from ..training.config import LoopConfig
from ..training.discrimination import (
    CachedFeatures,
    DiscriminationTask,
    Pairs,
    ProbingTask,
    collate,
    collate_cached,
)
from ..training.lora import add_lora, lora_of
from ..training.preview import box_preview
from ..training.reward_tuning import mean_score, tune_by_reward
from ..training.rewards import RewardPrompt
from ..training.whitening import whitened_input
from .datasets import tuning_prompts
from .load import load_demo
from .transfer import Pictures, transferred
from .workspace import SEED, Tensors, Workspace, progress

logger = logging.getLogger(__name__)

SHARED = {"vae": "autoencoder_finetuning", "text_encoder": "text_encoder"}
"""Parts that both architectures have → the stage that makes them."""

TRANSFER = 1024
"""Pictures by which the transformer's adapter is started from the UNet's."""


def cache_features(space: Workspace) -> Tensors:
    """What probing needs of the network, which is frozen there: one pass of each example will do.

    `features` `[N, 7, C, h, w]` float16, `timesteps` `[N]`, `texts` `[N, 3, D]`.
    """
    adapter = DiscriminativeAdapter(space.architecture.adapter)
    task = DiscriminationTask(space.trained_backbone(), adapter, latents=True)
    examples = Pairs(*space.examples())

    def read(indices: range) -> Tensors:
        kept = []
        torch.manual_seed(SEED + indices.start)
        loader = DataLoader(Subset(examples, indices), 16, collate_fn=collate)
        with torch.no_grad():
            for batch in progress(loader, "features"):
                with torch.autocast("cpu", torch.bfloat16, enabled=not slow_bf16()):
                    features, timesteps, texts, _ = task.read(batch)[0]
                kept.append((features.transpose(0, 1).half(), timesteps, texts.float()))
        names = ("features", "timesteps", "texts")
        parts = zip(*kept, strict=True)
        return {name: torch.cat(part) for name, part in zip(names, parts, strict=True)}

    return space.shared("features", read, space.recipe.cached_examples)


def probe(space: Workspace) -> Tensors:
    """Stage 1 of the paper: the adapter, on the features that were kept."""
    torch.manual_seed(SEED)
    adapter = DiscriminativeAdapter(space.architecture.adapter)
    return _probe(space, adapter, space.recipe.probing, fresh=True)


def probe_again(space: Workspace) -> Tensors:
    """The same, from the adapter of the model that ships."""
    torch.manual_seed(SEED)
    return _probe(space, _transferred(space), space.recipe.probing_again)


def _probe(
    space: Workspace, adapter: DiscriminativeAdapter, config: LoopConfig, fresh: bool = False
) -> Tensors:
    task = ProbingTask(adapter, space.phrase_encoder(), _weights(space))
    _, grounding = space.examples()
    data = CachedFeatures(space.tensors("features"), grounding)
    preview = box_preview(space.trained_backbone(), grounding, latents=True)
    math = sdpa_kernel(SDPBackend.MATH)  # fused attention is slow in bf16 on CPUs, backwards
    with _whitened(space, adapter, fresh), math:
        space.train("probing", task, data, config, collate=collate_cached, preview=preview)
    return adapter.state_dict()


def tune(space: Workspace) -> Tensors:
    """Stage 2 of the paper: the adapter and a LoRA of the UNet together."""
    torch.manual_seed(SEED)
    backbone = space.trained_backbone()
    add_lora(backbone.network)
    adapter = space.load("probing", DiscriminativeAdapter(space.architecture.adapter))
    task = DiscriminationTask(
        backbone, adapter, space.phrase_encoder(), _weights(space), denoise=True, latents=True
    )
    data = Pairs(*space.examples())
    preview = box_preview(backbone, data.grounding, latents=True)
    with _whitened(space, adapter):
        config = space.recipe.tuning
        space.train("tuning", task, data, config, collate=collate, preview=preview)
    tuned = {f"adapter.{key}": value for key, value in adapter.state_dict().items()}
    return tuned | {f"lora.{key}": value for key, value in lora_of(task.network).items()}


def tune_by_score(space: Workspace) -> Tensors:
    """A LoRA from prompts alone: the network learns what its adapter finds right."""
    recipe, pipeline = space.recipe, space.trained_backbone().pipeline
    pipeline.set_progress_bar_config(disable=True)
    adapter = space.load("probing", DiscriminativeAdapter(space.architecture.adapter))
    adapter.requires_grad_(False).eval()
    checkpoint, config = Checkpoint(adapter.config, adapter), recipe.score_tuning
    prompts = [RewardPrompt(text) for text in tuning_prompts(recipe.tuning_prompts)]
    some = prompts[:: recipe.strength_every]

    def figure(tuned: Any) -> float:
        return mean_score(pipeline, tuned, checkpoint, some, config)

    made = tune_by_reward(pipeline, checkpoint, prompts, space.folder / "tuning", config, figure)
    tuned = {f"adapter.{key}": value for key, value in adapter.state_dict().items()}
    return tuned | {f"lora.{key}": value for key, value in made.lora.items()}


def export(space: Workspace) -> Tensors:
    """What ships, in half precision, in the folder `export`: the network, its adapter, and what the
    model does not share with one that ships already."""
    target, architecture = space.folder / "export", space.architecture
    target.mkdir(exist_ok=True)
    for part, stage in {architecture.part: architecture.trained, **SHARED}.items():
        tensors = {key: value.half() for key, value in space.tensors(stage).items()}
        write_tensors(target / f"{part}.safetensors", tensors)
    made = {key: value.half() for key, value in space.tensors("tuning").items()}
    adapter = DiscriminativeAdapter(architecture.adapter).half()
    adapter.load_state_dict(_under("adapter.", made))
    checkpoint = Checkpoint(architecture.adapter, adapter, _under("lora.", made))
    save_checkpoint(target / architecture.checkpoint, checkpoint)
    return made


def _transferred(space: Workspace) -> DiscriminativeAdapter:
    """The adapter of the model that ships, for this network."""
    shipped, (matching, _) = load_demo(), space.examples()
    examples = [matching[index] for index in range(TRANSFER)]
    latents = torch.stack([example.images[0] for example in examples])
    pictures = Pictures(latents, [example.captions[0] for example in examples], SEED)
    config, old = space.architecture.adapter, shipped.checkpoint.adapter
    adapter, right = transferred(
        old, config,
        pictures.features(Backbone.of(shipped.pipeline), old.config.tap),
        pictures.features(space.trained_backbone(), config.tap),
    )  # fmt: skip
    logger.info("%s gives %.1f%% of what %s gives", config.tap, 100 * right, old.config.tap)
    return adapter


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _weights(space: Workspace) -> LossWeights:
    recipe = space.recipe
    return LossWeights(recognition=recipe.recognition, calibration=recipe.calibration)


def _whitened(
    space: Workspace, adapter: nn.Module, fresh: bool = False
) -> AbstractContextManager[None]:
    """The adapter's input in coordinates in which all that the features say weighs the same."""
    with safe_open(space.file("features"), "pt") as kept:
        features = kept.get_slice("features")[: space.recipe.sample, 0]
    return whitened_input(adapter, features, fresh)
