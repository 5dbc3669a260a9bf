"""CLIP score: how well a picture agrees with its prompt, by a CLIP model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .local import check_model, load_processor, prepare


class Clip(NamedTuple):
    """A `CLIPModel` of transformers in eval mode, and its processor."""

    model: Any
    processor: Any


def load_clip(folder: str | Path, device: str = "cpu") -> Clip:
    """Load a CLIP model in float32.

    Args:
        folder: a local copy, e.g. of `openai/clip-vit-base-patch16`.
        device: where to compute.

    Raises:
        FileNotFoundError, ValueError: there is no such model.
    """
    from transformers import CLIPModel

    folder = check_model(folder, "clip")
    model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return Clip(model.eval().to(device), load_processor(folder))


@torch.no_grad()
def clip_scores(clip: Clip, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
    """Cosine of picture and prompt in CLIP's space; papers print it times 100.

    Args:
        clip: the model.
        pictures: `N` pictures `[H, W, 3]` uint8.
        prompts: one per picture, cut after the model's 77 tokens.

    Returns:
        `[N]` float32 in [-1, 1].

    Raises:
        ValueError: numbers of pictures and prompts differ.
    """
    output = clip.model(**prepare(clip.processor, pictures, prompts, clip.model.device))
    cosines = torch.cosine_similarity(output.image_embeds, output.text_embeds)
    return cosines.cpu().numpy()
