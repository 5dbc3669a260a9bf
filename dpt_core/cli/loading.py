"""What commands load, and where they compute."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import say

if TYPE_CHECKING:
    from ..evaluation.models import Models

PARTS = ("vae", "text_encoder", "scheduler")


def chosen_device(name: str = "auto") -> str:
    """The device that a command computes on.

    Args:
        name: of a device, or auto for a GPU if there is one.

    Raises:
        ValueError: it is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot compute on device {name!r}: {reason}") from error
    return name


def demo_models(weights: Path | None, device: str, architecture: str) -> Models:
    """The demo model with and without its LoRA.

    Args:
        weights: where its files are; None for those that ship.
        device: of :func:`chosen_device`.
        architecture: "unet" or "dit".

    Raises:
        FileNotFoundError, ValueError: see :func:`~dpt_core.demo.load.load_demo`.
    """
    say("loading the demo model …")
    from ..demo.load import load_demo
    from ..demo.model import FOLDER
    from ..evaluation.models import Models

    _quiet()
    demo = load_demo(weights or FOLDER, architecture)
    return Models.of(demo.pipeline, demo.checkpoint, device)


def models_of(model: Path, adapter: Path, device: str, lora: float) -> Models:
    """A model directory with a checkpoint's LoRA and without, and its adapter.

    Args:
        model, device: see :func:`load_pipeline`.
        adapter: the checkpoint.
        lora: strength of its LoRA.

    Raises:
        OSError, ValueError: a file is missing, damaged or of another model.
    """
    from ..checkpoint import load_checkpoint
    from ..evaluation.models import Models

    checkpoint = load_checkpoint(adapter)  # first: it is the smaller file
    return Models.of(load_pipeline(model, device), checkpoint, device, lora)


def load_pipeline(folder: Path, device: str) -> Any:
    """A diffusers model directory as a pipeline; nothing is downloaded.

    Args:
        folder: the directory.
        device: of :func:`chosen_device`; on all but the CPU the weights of UNets are float16, those
            of transformers bfloat16.

    Raises:
        ValueError: the folder holds no pipeline that this package understands.
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no model directory at {folder}")
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder} is no diffusers model directory: it has no model_index.json. A single "
            "checkpoint file can be converted with diffusers"
        )
    say(f"loading {folder} …")
    import torch
    from diffusers import DiffusionPipeline

    from ..backbones.registry import backbone_of, left_out

    _quiet()
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    half = torch.float16 if "unet" in index else torch.bfloat16
    dtype = torch.float32 if torch.device(device).type == "cpu" else half
    pipeline = DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, torch_dtype=dtype, **left_out(folder)
    )
    if lacking := [name for name in PARTS if getattr(pipeline, name, None) is None]:
        raise ValueError(f"{folder} is no text-to-image model: it has no {', '.join(lacking)}")
    backbone_of(pipeline)  # refuse what cannot be read before it is moved
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def _quiet() -> None:
    """Keep the libraries' remarks out of the output."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
