"""Pictures from a diffusers pipeline, with and without self-correction, from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from .adapter import DiscriminativeAdapter
from .backends.diffusers import self_correcting, text_vectors


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
        steps: denoising steps of the pipeline's scheduler, ≥ 1.
        guidance: classifier-free guidance scale, > 1.
        strength: of self-correction, the paper's η; 0 samples plainly, at the plain cost.
        start_percent, end_percent: part of the noise schedule that is corrected, each in [0, 1].
        every_n_steps: correct every n-th step, ≥ 1.
        rule, inner_steps: see :func:`~dpt_core.correction.correct`.
        mode: see :data:`~dpt_core.correction.MODES`.
    """

    steps: int = 20
    guidance: float = 7.5
    strength: float = 0.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    every_n_steps: int = 1
    rule: str = "published"
    inner_steps: int = 1
    mode: str = "exact"


class Generated(NamedTuple):
    """What came out.

    Attributes:
        pictures: `[N, H, W, 3]` uint8.
        scores: `[S, N]` alignment scores at the corrected steps, before each move; S may be 0.
    """

    pictures: np.ndarray
    scores: np.ndarray


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None = None,
) -> Generated:
    """Sample one picture per prompt and seed.

    A picture depends on its prompt and seed alone, up to rounding, not on its neighbours.

    Args:
        pipeline: a diffusers pipeline of Stable Diffusion 1.x, 2.x or SDXL.
        prompts, seeds: one of each per picture.
        sampling: how.
        adapter: needed where `sampling.strength` is not 0.

    Raises:
        ValueError: as many prompts as seeds are needed; correction needs an adapter that fits.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"expected a seed per prompt; got {len(seeds)} for {len(prompts)}")
    if sampling.strength and adapter is None:
        raise ValueError("self-correction needs an adapter: give one, or strength 0")
    correcting = nullcontext(None)
    if sampling.strength:
        text = text_vectors(pipeline, prompts, adapter.config.text)
        correcting = self_correcting(
            pipeline.unet,
            adapter,
            text,
            sampling.strength,
            start_percent=sampling.start_percent,
            end_percent=sampling.end_percent,
            every_n_steps=sampling.every_n_steps,
            rule=sampling.rule,
            inner_steps=sampling.inner_steps,
            mode=sampling.mode,
            scheduler=pipeline.scheduler,
        )
    with correcting as run:
        pictures = pipeline(
            list(prompts),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
    scores = torch.stack(run.scores).numpy() if run and run.scores else np.empty((0, len(prompts)))
    return Generated((pictures * 255).round().astype(np.uint8), scores)
