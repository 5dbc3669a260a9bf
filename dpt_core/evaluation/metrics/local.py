"""Models of transformers from folders; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def check_model(folder: str | Path, kind: str) -> Path:
    """Make sure that a folder holds a model of a kind, without loading it.

    Args:
        folder: a directory as `save_pretrained` writes it.
        kind: its `model_type`.

    Raises:
        FileNotFoundError: there is no such folder, or no config.json in it.
        ValueError: it is another model.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a {kind} model of transformers in {folder}; it has no config.json. Give a "
            "local copy of the model's repository: nothing is downloaded"
        )
    found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if found != kind:
        raise ValueError(f"expected a {kind} model in {folder}; got {found}. Give another folder")
    return Path(folder)


def load_processor(folder: Path) -> Any:
    """A model's processor. It resizes with Pillow, as the published figures did; torchvision, which
    transformers prefers, differs by a grey level here and there."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")


def prepare(
    processor: Any, pictures: Sequence[np.ndarray], prompts: Sequence[str], device: Any
) -> Any:
    """What a model of pictures and texts takes.

    Args:
        processor: of transformers.
        pictures: `N` pictures `[H, W, 3]` uint8.
        prompts: one per picture; longer ones than the model knows are cut.
        device: of the model.

    Raises:
        ValueError: numbers of pictures and prompts differ.
    """
    if len(pictures) != len(prompts):
        raise ValueError(f"expected a prompt per picture; got {len(prompts)} for {len(pictures)}")
    return processor(
        text=list(prompts), images=[Image.fromarray(each) for each in pictures],
        return_tensors="pt", padding=True, truncation=True,
    ).to(device)  # fmt: skip
