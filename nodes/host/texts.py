"""The text vector `y` on its way through the host: attached by DPT_TextEncode, read while sampling.

A CONDITIONING made by DPT_TextEncode carries `dpt_text`: `eos_hidden` `[1, D]`, `pooled` `[1, P]`
and `mean` `[1, D]`, whichever its text encoder gives, with the words and the embedding that the
vectors belong to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from ...dpt_core.config import AdapterConfig

logger = logging.getLogger(__name__)

TEXT_KEY = "dpt_text"
PHRASE = "phrase"
"""Entry of `dpt_text` that holds the words."""
EMBEDDING = "embedding"
"""Entry of `dpt_text` that holds what the vectors were made with, `[1, L, E]`, not a copy: nodes
such as ConditioningAverage change the embedding and leave the vectors behind."""
SCALED = 1e-6
"""How far from 1 the cosine of an embedding and a multiple of it may be, by rounding."""


def text_vector(
    cond: Mapping[str, Any], config: AdapterConfig, backbone: Any
) -> torch.Tensor | None:
    """Text vector of one processed conditioning entry, `[B, D]`, None where it says nothing.

    `pooled_output` stands in for a missing or stale vector where it is the same.

    Args:
        cond: the entry's dictionary.
        config: the adapter's config.
        backbone: the model's, which knows what of the host's pooled output is the adapter's y.

    Raises:
        ValueError: no usable vector, or one of another width.
    """
    vectors, embedding = cond.get(TEXT_KEY, {}), cond.get("cross_attn")
    if torch.is_tensor(embedding) and not embedding.any():  # ConditioningZeroOut
        return None
    stale = _is_stale(vectors.get(EMBEDDING), embedding)
    text = None if stale else vectors.get(config.text)
    if text is None:
        text = backbone.from_pooled(config.text, cond.get("pooled_output"))
    elif config.text == "pooled":
        text = backbone.from_pooled(config.text, text)
    elif config.text == "mean" and not text.any():  # of an empty prompt
        return None
    if text is None and stale:
        raise ValueError(
            "a node between DPT_TextEncode and the sampler changed the positive conditioning "
            "(ConditioningAverage, for example), so that its text vector no longer fits: encode "
            "the final prompt with DPT_TextEncode, or remove that node"
        )
    if text is None:
        raise ValueError(
            "DPT found no text vector on the positive conditioning: encode the prompt with "
            "DPT_TextEncode instead of CLIPTextEncode"
        )
    if text.shape[-1] != config.text_width:
        raise ValueError(
            f"this adapter expects a text vector of width {config.text_width}, the positive "
            f"conditioning brings {text.shape[-1]}: encode the prompt with the CLIP of the model "
            "family the adapter was trained on"
        )
    return text


def _is_stale(made_with: torch.Tensor | None, embedding: torch.Tensor | None) -> bool:
    """Whether an embedding is another one than the text vectors were made with.

    Of joined prompts the vectors are the first one's, as if the prompt were too long.
    """
    if made_with is None or embedding is None or made_with is embedding:
        return False
    length = made_with.shape[1]
    if embedding.shape[1] > length and torch.equal(embedding[:, :length], made_with):
        logger.warning(
            "DPT: the positive conditioning was joined from several (ConditioningConcat): the "
            "alignment score reads the first one"
        )
        return False
    return not torch.equal(embedding, made_with) and not _is_scaled(made_with, embedding)


def _is_scaled(made_with: torch.Tensor, embedding: torch.Tensor) -> bool:
    """Whether an embedding is a multiple of another (ConditioningMultiply): its aim is the same."""
    if made_with.shape != embedding.shape:
        return False
    alike = torch.cosine_similarity(made_with.flatten().double(), embedding.flatten().double(), 0)
    return float(alike) > 1 - SCALED
