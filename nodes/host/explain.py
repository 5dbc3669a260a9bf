"""What is read of pictures to tell which part of a prompt holds in them."""

from __future__ import annotations

from typing import Any

import torch
from comfy.utils import ProgressBar

from ...dpt_core.explain import LEVELS, SENTENCE_LEVELS, Evidence, Questions
from ...dpt_core.grounding import Grounding
from .adapter import LoadedAdapter
from .encode import encode_prompt
from .grounding import boxes_in
from .measure import measure
from .noise import SEEDS
from .pictures import to_pictures
from .read_once import encode_pictures


def read_evidence(
    model: Any,
    adapter: LoadedAdapter,
    vae: Any,
    images: torch.Tensor,
    clip: Any,
    questions: Questions,
    seed: int,
) -> list[Evidence]:
    """Ask all questions of all pictures.

    Args:
        model: the host's ModelPatcher.
        adapter: the adapter; with no grounding queries nothing is searched.
        vae: the host's VAE.
        images: `[B, H, W, C]` in [0, 1], of any size.
        clip: the host's CLIP, which encodes the questions.
        questions: of :func:`~dpt_core.explain.questions`.
        seed: seed of the noise; every picture gets the same.

    Returns:
        One per picture.

    Raises:
        ValueError: the adapter does not fit the model, or VAE or CLIP are missing.
    """
    latents, size, pictures = encode_pictures(vae, images), images.shape[1:3], to_pictures([images])
    boxes: list[dict[str, list[Grounding]]] = [{} for _ in images]
    scores: list[dict[str, list[float]]] = [{} for _ in images]
    phrases = (*questions.phrases, *questions.others) if adapter.config.grounding_queries else ()
    bar = ProgressBar(len(phrases) + len(questions.sentences))
    for phrase in phrases:
        encoded = encode_prompt(clip, phrase)
        for level in questions.levels(phrase):
            noise = (seed + LEVELS.index(level)) % SEEDS
            found = boxes_in(model, adapter, latents, size, encoded, level, noise)
            for each, one in zip(boxes, found, strict=True):
                each.setdefault(phrase, []).append(one)
        bar.update(1)
    for sentence in questions.sentences:
        encoded = encode_prompt(clip, sentence)
        for place, level in enumerate(SENTENCE_LEVELS):
            noise = (seed + place) % SEEDS
            found = measure(model, adapter, latents, encoded, level, 1, noise).mean(0)
            for each, one in zip(scores, found.tolist(), strict=True):
                each.setdefault(sentence, []).append(one)
        bar.update(1)
    return [Evidence(*each) for each in zip(pictures, boxes, scores, strict=True)]
