"""The alignment score: how well a noisy latent agrees with a text."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity


def query_similarities(query_text: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosine of every matching query with the text.

    Args:
        query_text: `[B, Q, D]` matching queries.
        text: `[B, D]` text vectors `y`, or `[1, D]` for one text shared by all.

    Returns:
        `[B, Q]` in [-1, 1].

    Raises:
        ValueError: widths differ.
    """
    if query_text.shape[-1] != text.shape[-1]:
        raise ValueError(
            f"adapter expects a text vector of width {query_text.shape[-1]}, got "
            f"{text.shape[-1]}: it was trained with another text encoder"
        )
    return cosine_similarity(query_text, text.to(query_text)[:, None, :], dim=-1)


def alignment_score(query_text: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Alignment score `s = max_j cos(q_j, y)`.

    Args:
        query_text: `[B, Q, D]` matching queries.
        text: `[B, D]` or `[1, D]` text vectors.

    Returns:
        `[B]` in [-1, 1].
    """
    return query_similarities(query_text, text).amax(dim=-1)
