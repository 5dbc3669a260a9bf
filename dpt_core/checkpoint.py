"""Checkpoints: adapter and LoRA in one file.

Two layouts are read. Ours is `.safetensors` with `adapter.*` and `lora.*` keys and the adapter's
config as JSON in the metadata. The published `pytorch_model.bin` holds bare adapter keys beside
LoRA keys; a stage-1 file holds no LoRA.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .adapter import DiscriminativeAdapter
from .config import AdapterConfig
from .lora import is_lora_key

logger = logging.getLogger(__name__)

CONFIG_KEY = "dpt_config"
"""Metadata entry of a `.safetensors` checkpoint that holds the adapter config."""

Tensors = dict[str, torch.Tensor]


class CheckpointError(ValueError):
    """A file is not a DPT checkpoint, or not a whole one."""


@dataclass(frozen=True)
class Checkpoint:
    """What a DPT checkpoint holds.

    Attributes:
        config: sizes and conventions of the adapter.
        adapter: the adapter, float32, in eval mode.
        lora: LoRA tensors under their published names (:mod:`dpt_core.lora`); empty for stage 1.
    """

    config: AdapterConfig
    adapter: DiscriminativeAdapter
    lora: Tensors = field(default_factory=dict)


def load_checkpoint(path: str | Path, **known: Any) -> Checkpoint:
    """Read a checkpoint strictly: every tensor used, none missing.

    Args:
        path: a `.safetensors` file of ours or a published `pytorch_model.bin`.
        known: :class:`AdapterConfig` fields that a file without config cannot tell (`tap`,
            `heads`, `matching_queries`, `text`); published values otherwise.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: unreadable, no adapter, or tensors missing, left over or misshapen.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no DPT checkpoint at {path}")
    tensors, config_json = _read(path)
    adapter_tensors, lora = _split(tensors, path)
    try:
        if config_json is None:
            config = AdapterConfig.from_tensors(adapter_tensors, **known)
        else:
            config = AdapterConfig.from_json(config_json)
    except ValueError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    if not lora:
        logger.info("%s brings no LoRA (a stage-1 checkpoint): the adapter alone", path.name)
    return Checkpoint(config, _build(config, adapter_tensors, path), lora)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as `.safetensors`, complete or not at all.

    Raises:
        ValueError: the path does not end in `.safetensors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoints are written as .safetensors; got {path.name}")
    tensors = {f"adapter.{key}": value for key, value in checkpoint.adapter.state_dict().items()}
    tensors |= {f"lora.{key}": value for key, value in checkpoint.lora.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={CONFIG_KEY: checkpoint.config.to_json()})
    partial.replace(path)


def _read(path: Path) -> tuple[Tensors, str | None]:
    """All tensors of a file and, if it has one, its config."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                config = (file.metadata() or {}).get(CONFIG_KEY)
                return {key: file.get_tensor(key) for key in file.keys()}, config
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as a checkpoint ({error}): download it again, or convert "
            "it with `dpt convert`"
        ) from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise CheckpointError(f"{path.name} holds no flat dictionary of tensors: no DPT checkpoint")
    return tensors, None


def _split(tensors: Tensors, path: Path) -> tuple[Tensors, Tensors]:
    """Adapter and LoRA tensors under their published names."""
    bare = {
        key.removeprefix("adapter.").removeprefix("lora."): value for key, value in tensors.items()
    }
    adapter = {key: value for key, value in bare.items() if not key.startswith("unet.")}
    lora = {key: value for key, value in bare.items() if key.startswith("unet.")}
    if strange := [key for key in lora if not is_lora_key(key)]:
        raise CheckpointError(
            f"{path.name}: {len(strange)} tensors under unet. are no LoRA, e.g. {strange[0]!r}"
        )
    if "input_proj.weight" not in adapter:
        raise CheckpointError(
            f"{path.name} is no DPT adapter: none of its {len(tensors)} tensors is "
            "input_proj.weight. Choose a file made by DPT training or `dpt convert`"
        )
    return adapter, lora


def _build(config: AdapterConfig, tensors: Tensors, path: Path) -> DiscriminativeAdapter:
    with torch.device("meta"):
        adapter = DiscriminativeAdapter(config)
    tensors = {key: value.float() for key, value in tensors.items()}
    try:
        adapter.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} does not fit its adapter config: {error}") from error
    return adapter.requires_grad_(False).eval()
