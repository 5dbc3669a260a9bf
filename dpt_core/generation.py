"""Pictures from a diffusers pipeline, with and without self-correction, from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from .adapter import DiscriminativeAdapter
from .correction import Correction
from .diffusers import self_correcting, text_vectors


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
        steps: denoising steps of the pipeline's scheduler, ≥ 1.
        guidance: classifier-free guidance scale, > 1: diffusers samples without guidance at 1.
        correction: how the run corrects itself; None, like strength 0, samples plainly, at the
            plain cost.

    Raises:
        ValueError: steps or guidance are out of range.
    """

    steps: int = 20
    guidance: float = 7.5
    correction: Correction | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}")
        if not self.guidance > 1:
            raise ValueError(f"guidance must be above 1; got {self.guidance:g}")

    @property
    def plain(self) -> Sampling:
        """The same without correction."""
        return replace(self, correction=None)

    @property
    def corrects(self) -> bool:
        """Whether anything is corrected."""
        return self.correction is not None and self.correction.strength > 0


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
        adapter: needed where the sampling corrects itself.

    Raises:
        ValueError: as many prompts as seeds are needed; correction needs an adapter that fits.
    """
    pictures, scores = _sample(pipeline, prompts, seeds, sampling, adapter, "np")
    return Generated((pictures * 255).round().astype(np.uint8), scores)


def generate_latents(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None = None,
) -> torch.Tensor:
    """As :func:`generate`, but the scaled latents `[N, C, h, w]` of the pictures, not decoded."""
    return _sample(pipeline, prompts, seeds, sampling, adapter, "latent")[0].float()


def _sample(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None,
    kind: str,
) -> tuple[Any, np.ndarray]:
    """What the pipeline gives as a kind of output, and the scores at the corrected steps."""
    if len(prompts) != len(seeds):
        raise ValueError(f"expected a seed per prompt; got {len(seeds)} for {len(prompts)}")
    if sampling.corrects and adapter is None:
        raise ValueError("self-correction needs an adapter: give one, or no correction")
    with _correcting(pipeline, prompts, sampling, adapter) as run:
        images = pipeline(
            list(prompts),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=kind,
        ).images
    scores = torch.stack(run.scores).numpy() if run and run.scores else np.empty((0, len(prompts)))
    return images, scores


def _correcting(
    pipeline: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None,
) -> AbstractContextManager[Any]:
    """The context in which a pipeline corrects itself as a sampling says."""
    if not sampling.corrects:
        return nullcontext(None)
    text = text_vectors(pipeline, prompts, adapter.config.text)
    return self_correcting(pipeline, adapter, text, sampling.correction)
