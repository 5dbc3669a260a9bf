"""Whole sampling runs through the host's own KSampler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from dpt_pack.dpt_core.correction import PRESETS
from dpt_pack.nodes.host.correction import with_self_correction
from tiny_models import tiny_text

from nodes import common_ksampler

STRENGTH = 500.0
"""Moves the latents of the tiny models by a few percent per step."""


def latents(batch: int = 1, size: int = 16, seed: int | None = None) -> dict:
    """A LATENT: empty, or random with a seed."""
    if seed is None:
        return {"samples": torch.zeros(batch, 4, size, size)}
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 4, size, size, generator=generator)}


def sample(
    model,
    positive=None,
    negative=None,
    latent=None,
    *,
    steps=4,
    cfg=7.5,
    seed=7,
    sampler="euler",
    scheduler="normal",
    denoise=1.0,
) -> torch.Tensor:
    """Sample a model with the host's KSampler."""
    (result,) = common_ksampler(
        model,
        seed,
        steps,
        cfg,
        sampler,
        scheduler,
        positive or tiny_text(1),
        negative or tiny_text(2),
        latent or latents(),
        denoise=denoise,
    )
    return result["samples"]


def corrected(model, adapter, strength: float = STRENGTH, **settings):
    """A self-correcting model and the list its scores go to."""
    scores: list[torch.Tensor] = []
    correction = replace(PRESETS["published"], strength=strength, **settings)
    model = with_self_correction(
        model, adapter, correction, lambda step, steps, values: scores.append(values)
    )
    return model, scores


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the expected norm."""
    return float((actual - expected).norm() / expected.norm())


def psnr(actual: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal-to-noise ratio of pictures in [0, 1], in dB."""
    return -10 * float(np.log10(np.square(actual - expected).mean() + 1e-20))


def diffusers_picture(pipeline, prompt: str, steps: int, cfg: float, seed: int) -> np.ndarray:
    """What a diffusers pipeline draws, `[1, H, W, 3]` in [0, 1]."""
    return pipeline(
        prompt,
        num_inference_steps=steps,
        guidance_scale=cfg,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images


def call(node, **inputs):
    """The first output of one of the host's nodes, whose old and new schemas differ."""
    if hasattr(node, "execute"):
        return node.execute(**inputs).result[0]
    return getattr(node(), node.FUNCTION)(**inputs)[0]
