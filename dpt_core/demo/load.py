"""The demo model from its files, for diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..checkpoint import Checkpoint, load_checkpoint
from . import model
from .architectures import ARCHITECTURES, UNET, architecture_of

CHECKPOINT = ARCHITECTURES[UNET].checkpoint
"""Adapter and LoRA of the UNet."""

TEXT_PREFIX = "text_model."
"""Before each weight of CLIP's text encoder in transformers 4 and in ComfyUI; 5 dropped it."""


class Demo(NamedTuple):
    """The demo model on the CPU: float32, frozen, in eval mode.

    Attributes:
        pipeline: a diffusers pipeline, without the LoRA.
        checkpoint: adapter and, of the UNet, LoRA.
    """

    pipeline: Any
    checkpoint: Checkpoint


def load_demo(folder: str | Path = model.FOLDER, architecture: str = UNET) -> Demo:
    """Load the demo model for diffusers; the network is not used.

    Args:
        folder: where its weights are.
        architecture: "unet" or "dit".

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or of another model; there is no such architecture.
    """
    tokenizer, kind = model.load_tokenizer(), architecture_of(architecture)
    pipeline = kind.pipeline_of(
        _filled(kind.new, read_weights(kind.part, folder)),
        _filled(model.new_vae, read_weights("vae", folder)),
        _filled(lambda: model.new_text_encoder(tokenizer), read_weights("text_encoder", folder)),
        tokenizer,
    )
    return Demo(pipeline, load_checkpoint(demo_file(kind.checkpoint, folder)))


def read_weights(part: str, folder: str | Path = model.FOLDER) -> dict[str, torch.Tensor]:
    """Weights of one part, float32, under the names of diffusers and (bare) transformers.

    Args:
        part: vae, text_encoder, or the `part` of an architecture.
        folder: where the demo's weights are.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_demo`.
    """
    path = demo_file(f"{part}.safetensors", folder)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): install the pack again") from error
    return {key.removeprefix(TEXT_PREFIX): tensor.float() for key, tensor in tensors.items()}


def demo_file(name: str, folder: str | Path = model.FOLDER) -> Path:
    """Path of one of the demo model's files.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"the demo model lacks {name} in {path.parent}: install the pack again, or make the "
            "model with `dpt train demo`"
        )
    return path


def _filled(build: Any, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A frozen model around given weights; none is initialised first."""
    from accelerate import init_empty_weights

    with init_empty_weights():  # parameters only: buffers that are in no file keep their values
        module = build()
    if next(iter(module.state_dict())).startswith(TEXT_PREFIX):
        weights = {TEXT_PREFIX + key: tensor for key, tensor in weights.items()}
    try:
        module.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the demo model's weights are of another model: {error}") from error
    return module.requires_grad_(False).eval()
