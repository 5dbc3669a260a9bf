"""Checkpoints: adapter and LoRA in one file.

Two layouts are read. Ours is `.safetensors` with `adapter.*` and `lora.*` keys and the adapter's
config as JSON in the metadata. The published `pytorch_model.bin` holds bare adapter keys beside
LoRA keys; a stage-1 file holds no LoRA.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .adapter import DiscriminativeAdapter
from .config import LIMITS, AdapterConfig
from .files import write_tensors
from .lora import GENERIC, PREFIX, is_lora_key, lora_updates
from .torch_files import MOST_TENSORS, TorchFileError, read_torch_file

logger = logging.getLogger(__name__)

CONFIG_KEY = "dpt_config"
"""Metadata entry of a `.safetensors` checkpoint that holds the adapter config."""

UNSEEN = ("heads", "matching_queries")
"""Sizes that leave no trace in an adapter's tensors."""

Tensors = dict[str, torch.Tensor]


class CheckpointError(ValueError):
    """A file is not a DPT checkpoint, or not a whole one."""


@dataclass(frozen=True)
class Checkpoint:
    """What a DPT checkpoint holds.

    Attributes:
        config: sizes and conventions of the adapter.
        adapter: the adapter, float32, in eval mode.
        lora: LoRA tensors under their names (:mod:`dpt_core.lora`); empty for stage 1.
    """

    config: AdapterConfig
    adapter: DiscriminativeAdapter
    lora: Tensors = field(default_factory=dict)


def load_checkpoint(path: str | Path, **known: Any) -> Checkpoint:
    """Read a checkpoint strictly: every tensor used, none missing, all of it checked first.

    Args:
        path: a `.safetensors` file of ours or a published `pytorch_model.bin`.
        known: :class:`AdapterConfig` fields that a file without config cannot tell (`tap`,
            `heads`, `matching_queries`, `text`); published values otherwise.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: unreadable, no adapter, a config that is impossible or does not fit the
            tensors, or tensors missing, left over, misshapen, named twice, of numbers other than
            floating ones, or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no DPT checkpoint at {path}")
    try:
        tensors, config_json = _read(path)
        adapter_tensors, lora = _split(tensors)
        if config_json is None:
            config = AdapterConfig.from_tensors(adapter_tensors, **known)
        else:
            config = AdapterConfig.from_json(config_json)
            _check_agreement(config, adapter_tensors)
        _check_lora(lora)
        adapter = _build(config, adapter_tensors)
    except CheckpointError:
        raise
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    if not lora:
        logger.info("%s brings no LoRA (a stage-1 checkpoint): the adapter alone", path.name)
    return Checkpoint(config, adapter, lora)


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
    write_tensors(path, tensors, {CONFIG_KEY: checkpoint.config.to_json()})


def _read(path: Path) -> tuple[Tensors, str | None]:
    """All tensors of a file, finite floating numbers, and its config if it has one."""
    config = None
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                _check_names(names, path)
                config = (file.metadata() or {}).get(CONFIG_KEY)
                tensors = {key: file.get_tensor(key) for key in names}
        else:
            tensors = read_torch_file(path)
            _check_names(tensors, path)
    except (SafetensorError, OSError, TorchFileError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as a checkpoint ({error}). Download it again, or take "
            "another file"
        ) from None
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(
                f"tensor {key!r} must hold floating numbers; got {tensor.dtype}. Download the file "
                "again, or save it in float32, bfloat16 or float16"
            )
        if not tensor.float().isfinite().all():
            raise ValueError(
                f"tensor {key!r} must be finite; it holds NaN or infinity: its training diverged, "
                "or the file is damaged. Take an earlier checkpoint, or download it again"
            )
    return tensors, config


def _check_names(names: Iterable[str], path: Path) -> None:
    """Whether it is an adapter's file at all: known before gigabytes of another are read."""
    names = list(names)
    if len(names) > MOST_TENSORS:
        raise CheckpointError(
            f"{path.name}: expected at most {MOST_TENSORS} tensors; got {len(names)}. Choose "
            "a file made by DPT training or `dpt convert`"
        )
    if "input_proj.weight" not in map(_bare, names):
        raise CheckpointError(
            f"{path.name} is no DPT adapter: none of its {len(names)} tensors is "
            "input_proj.weight. Choose a file made by DPT training or `dpt convert`"
        )


def _bare(name: str) -> str:
    """The published name of a tensor."""
    for prefix in ("adapter.", "lora."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _split(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Adapter and LoRA tensors under their published names."""
    names: dict[str, str] = {}
    for key in tensors:
        if (first := names.setdefault(_bare(key), key)) != key:
            raise ValueError(f"{first!r} and {key!r} are the same tensor: remove one of them")
    bare = {name: tensors[key] for name, key in names.items()}
    networks = (PREFIX, GENERIC)
    adapter = {key: value for key, value in bare.items() if not key.startswith(networks)}
    lora = {key: value for key, value in bare.items() if key.startswith(networks)}
    if strange := [key for key in lora if not is_lora_key(key)]:
        raise ValueError(
            f"{len(strange)} tensors under unet. or diffusion_model. are no LoRA, e.g. "
            f"{strange[0]!r}"
        )
    return adapter, lora


def _check_agreement(config: AdapterConfig, tensors: Tensors) -> None:
    """Whether the sizes in a config are those of the tensors: nothing is built before."""
    unseen = {
        each.name: getattr(config, each.name)
        for each in fields(config)
        if each.name in UNSEEN or each.name not in LIMITS
    }
    seen = AdapterConfig.from_tensors(tensors, **unseen)
    for each in fields(config):
        ours, theirs = getattr(seen, each.name), getattr(config, each.name)
        if ours != theirs:
            raise ValueError(
                f"its config says {each.name} {theirs}, its tensors have {ours}: one of the two is "
                "damaged. Download it again, or convert the original with `dpt convert`"
            )


def _check_lora(lora: Tensors) -> None:
    for module, (down, up) in lora_updates(lora):
        shapes = f"down {list(down.shape)} and up {list(up.shape)}"
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.numel():
            raise ValueError(
                f"LoRA update of {module} must be down [rank, in] and up [out, rank] of one rank; "
                f"got {shapes}. Download the file again, or take another"
            )


def _build(config: AdapterConfig, tensors: Tensors) -> DiscriminativeAdapter:
    with torch.device("meta"):
        adapter = DiscriminativeAdapter(config)
    tensors = _identity(config) | tensors
    wanted = adapter.state_dict()
    missing, extra = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    if missing or extra:
        raise ValueError(
            f"its tensors do not fit its config: missing {_few(missing)}, left over {_few(extra)}. "
            "Download it again, or convert the original with `dpt convert`"
        )
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise ValueError(
                f"tensor {key!r} must have the shape {list(wanted[key].shape)}, as its config "
                f"says; got {list(tensor.shape)}. Download the file again"
            )
    tensors = {key: value.float() for key, value in tensors.items()}
    adapter.load_state_dict(tensors, strict=True, assign=True)
    return adapter.requires_grad_(False).eval()


def _few(names: Iterable[str]) -> str:
    return reprlib.repr(sorted(names)) if names else "none"


def _identity(config: AdapterConfig) -> Tensors:
    """Mean and scale that leave a text vector as it is, for files that lack them."""
    if config.text != "mean":
        return {}
    width = config.text_width
    return {"text_mean": torch.zeros(width), "text_scale": torch.ones(width)}
