"""The stages that probe and tune the demo model, and the files that ship."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Subset

from ..adapter import DiscriminativeAdapter
from ..checkpoint import Checkpoint, save_checkpoint
from ..files import write_tensors
from ..losses import LossWeights
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
from ..training.whitening import whitened_input
from . import model
from .workspace import SEED, Tensors, Workspace, progress

EXPORTED = {
    "unet": "denoiser_finetuning",
    "vae": "autoencoder_finetuning",
    "text_encoder": "text_encoder",
}
"""Part of the model that ships → the stage that makes it."""


def cache_features(space: Workspace) -> Tensors:
    """What probing needs of the UNet, which is frozen there: one pass of each example will do.

    `features` `[N, 6, C, h, w]` float16, `timesteps` `[N]`, `texts` `[N, 3, D]`.
    """
    adapter = DiscriminativeAdapter(model.ADAPTER)
    task = DiscriminationTask(space.trained_backbone(), adapter, latents=True)
    examples = Pairs(*space.examples())

    def read(indices: range) -> Tensors:
        kept = []
        torch.manual_seed(SEED + indices.start)
        loader = DataLoader(Subset(examples, indices), 16, collate_fn=collate)
        with torch.no_grad():
            for batch in progress(loader, "features"):
                with torch.autocast("cpu", torch.bfloat16):
                    features, timesteps, texts, _ = task.read(batch)[0]
                kept.append((features.transpose(0, 1).half(), timesteps, texts.float()))
        names = ("features", "timesteps", "texts")
        parts = zip(*kept, strict=True)
        return {name: torch.cat(part) for name, part in zip(names, parts, strict=True)}

    return space.shared("features", read, space.recipe.cached_examples)


def probe(space: Workspace) -> Tensors:
    """Stage 1 of the paper: the adapter, on the features that were kept."""
    torch.manual_seed(SEED)
    adapter = DiscriminativeAdapter(model.ADAPTER)
    task = ProbingTask(adapter, space.phrase_encoder(), _weights(space))
    _, grounding = space.examples()
    data = CachedFeatures(space.tensors("features"), grounding)
    preview = box_preview(space.trained_backbone(), grounding, latents=True)
    math = sdpa_kernel(SDPBackend.MATH)  # fused attention is slow in bf16 on CPUs, backwards
    with _whitened(space, adapter, fresh=True), math:
        config = space.recipe.probing
        space.train("probing", task, data, config, collate=collate_cached, preview=preview)
    return adapter.state_dict()


def tune(space: Workspace) -> Tensors:
    """Stage 2 of the paper: the adapter and a LoRA of the UNet together."""
    torch.manual_seed(SEED)
    backbone = space.trained_backbone()
    add_lora(backbone.network)
    adapter = space.load("probing", DiscriminativeAdapter(model.ADAPTER))
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


def export(space: Workspace) -> Tensors:
    """What ships, in half precision: `export/{unet,vae,text_encoder,dpt}.safetensors`."""
    target = space.folder / "export"
    target.mkdir(exist_ok=True)
    for part, stage in EXPORTED.items():
        tensors = {key: value.half() for key, value in space.tensors(stage).items()}
        write_tensors(target / f"{part}.safetensors", tensors)
    tuned = {key: value.half() for key, value in space.tensors("tuning").items()}
    adapter = DiscriminativeAdapter(model.ADAPTER).half()
    adapter.load_state_dict(_under("adapter.", tuned))
    checkpoint = Checkpoint(model.ADAPTER, adapter, _under("lora.", tuned))
    save_checkpoint(target / "dpt.safetensors", checkpoint)
    return tuned


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
