"""BLIP scores: how well a picture agrees with its prompt, by BLIP's two retrieval heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .local import check_model, load_processor, prepare


class Blip(NamedTuple):
    """A `BlipForImageTextRetrieval` of transformers in eval mode, and its processor."""

    model: Any
    processor: Any


class BlipScores(NamedTuple):
    """Of `N` pictures, each `[N]` float32.

    Attributes:
        matching: probability in [0, 1] that picture and prompt belong together.
        contrastive: cosine in [-1, 1] of the two encoders' projections.
    """

    matching: np.ndarray
    contrastive: np.ndarray


def load_blip(folder: str | Path, device: str = "cpu") -> Blip:
    """Load a BLIP model for retrieval in float32.

    Args:
        folder: a local copy, e.g. of `Salesforce/blip-itm-base-coco`.
        device: where to compute.

    Raises:
        FileNotFoundError, ValueError: there is no such model.
    """
    from transformers import BlipForImageTextRetrieval

    folder = check_model(folder, "blip")
    model = BlipForImageTextRetrieval.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    )
    return Blip(model.eval().to(device), load_processor(folder))


@torch.no_grad()
def blip_scores(blip: Blip, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> BlipScores:
    """Both scores from one pass over the pictures.

    What the model's own forward computes, without its second pass over the pictures for the second
    head and with its mask of picture tokens on the pictures' device.

    Args:
        blip: the model.
        pictures: `N` pictures `[H, W, 3]` uint8.
        prompts: one per picture.

    Raises:
        ValueError: numbers of pictures and prompts differ.
    """
    model = blip.model
    inputs = prepare(blip.processor, pictures, prompts, model.device)
    text = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    seen = model.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
    mask = torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device)
    both = model.text_encoder(
        **text, encoder_hidden_states=seen, encoder_attention_mask=mask
    ).last_hidden_state
    alone = model.text_encoder(**text).last_hidden_state
    matching = model.itm_head(both[:, 0]).softmax(-1)[:, 1]
    contrastive = torch.cosine_similarity(
        model.vision_proj(seen[:, 0]), model.text_proj(alone[:, 0])
    )
    return BlipScores(matching.cpu().numpy(), contrastive.cpu().numpy())
