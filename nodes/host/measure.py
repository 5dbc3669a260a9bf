"""Alignment scores of finished pictures."""

from __future__ import annotations

from typing import Any

import torch

from ...dpt_core.reading import check_reading, noise_draws
from .adapter import LoadedAdapter
from .calls import ModelCall
from .read_once import Reading, read_once
from .scoring import ApplyModel, tap_not_reached


def measure(
    model: Any,
    adapter: LoadedAdapter,
    latents: torch.Tensor,
    positive: list,
    timestep: int,
    draws: int,
    seed: int,
) -> torch.Tensor:
    """Alignment scores of latents with a conditioning.

    Args:
        model: the host's ModelPatcher.
        adapter: the adapter.
        latents: `[B, C, h, w]` as a VAE encodes them.
        positive: the conditioning to compare with.
        timestep: noise level in [0, 999] at which the adapter reads.
        draws: noise draws to average over, ≥ 1.
        seed: seed of the noise.

    Returns:
        `[draws, B]` in [-1, 1]; of several chunks of conditioning the mean.

    Raises:
        ValueError: a number is out of range, or the adapter does not fit the model or the text.
    """
    check_reading(timestep, draws)

    def scores(reading: Reading, executor: ApplyModel, call: ModelCall) -> torch.Tensor:
        rows = reading.targets.rows_of(call)
        if rows is None or len(rows.index) < len(call.x):
            raise ValueError(
                "the positive conditioning was not recognised in the model's call: another node "
                "changed it on the way, or the prompt is empty. Wire the conditioning of "
                "DPT_TextEncode without that node"
            )
        if (found := reading.scorer.scores(executor, call, rows)) is None:
            raise tap_not_reached(adapter.config.tap, call)
        return found

    noise, count = noise_draws(latents, draws, seed), len(latents)
    batches = read_once(model, adapter, positive, latents, noise, timestep, scores)
    return torch.cat([
        torch.cat(found).view(-1, some, count).mean(0) for some, found in batches
    ]).cpu()  # fmt: skip
