"""Pictures from a diffusers pipeline, with and without self-correction, from the same seeds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from .adapter import DiscriminativeAdapter
from .backbones.registry import backbone_of, network_name
from .correction import Correction
from .diffusers import self_correcting, text_vectors
from .lora import merge_lora
from .search import Search
from .searching import Searching


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
        steps: denoising steps of the pipeline's scheduler, ≥ 1.
        guidance: guidance scale, ≥ 1; 1 is without guidance, for distilled models. Flux, which
            is told its guidance, is told this one.
        size: (height, width) of the pictures in pixels; by default the pipeline's own.
        correction: how the run corrects itself; None, like strength 0, samples plainly, at the
            plain cost.

    Raises:
        ValueError: steps or guidance are out of range.
    """

    steps: int = 20
    guidance: float = 7.5
    correction: Correction | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}")
        if not self.guidance >= 1:
            raise ValueError(f"guidance must be at least 1; got {self.guidance:g}")

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
        pictures: `[M, H, W, 3]` uint8: one per prompt, or of a search those kept of each prompt,
            one prompt after another, the best of each first.
        scores: `[S, M]` alignment scores at the steps where they were read, before each move; S may
            be 0.
        seeds: what each picture was drawn from. Drawn from it alone, it is the same picture.
        candidates: `[C, N]` of a search, the last score of each candidate, of the prompt's best
            try.
    """

    pictures: np.ndarray
    scores: np.ndarray
    seeds: list[int]
    candidates: np.ndarray | None = None


def with_lora(pipeline: Any, lora: Mapping[str, torch.Tensor], strength: float = 1.0) -> Any:
    """A pipeline whose network is a copy with a LoRA merged; the other parts are shared.

    Raises:
        ValueError: the LoRA does not fit the network.
    """
    name = network_name(pipeline)
    network = copy.deepcopy(getattr(pipeline, name))
    merge_lora(network, lora, strength)
    tuned = copy.copy(pipeline)
    tuned.register_modules(**{name: network})
    return tuned


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None = None,
    search: Search | None = None,
) -> Generated:
    """Sample one picture per prompt and seed.

    A picture depends on its prompt and seed alone, up to rounding, not on its neighbours.

    Args:
        pipeline: a diffusers pipeline of a family in :mod:`dpt_core.backbones.registry`.
        prompts, seeds: one of each per picture; of a search, the seed of the first candidate.
        sampling: how, each candidate of a search included.
        adapter: needed where the sampling corrects itself, and for a search.
        search: draw several of each and keep the best.

    Raises:
        ValueError: as many prompts as seeds are needed; correction and search need an adapter that
            fits.
    """
    _check(prompts, seeds, sampling, adapter, search)
    if search:
        return _searched(pipeline, prompts, seeds, sampling, adapter, search)
    with _correcting(pipeline, prompts, sampling, adapter) as run:
        pictures = _bytes(_sample(pipeline, prompts, seeds, sampling))
    scores = torch.stack(run.scores).numpy() if run and run.scores else np.empty((0, len(prompts)))
    return Generated(pictures, scores, list(seeds))


def generate_latents(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None = None,
) -> torch.Tensor:
    """As :func:`generate`, but the scaled latents `[N, C, h, w]` of the pictures, not decoded."""
    _check(prompts, seeds, sampling, adapter, None)
    with _correcting(pipeline, prompts, sampling, adapter):
        drawn = _sample(pipeline, prompts, seeds, sampling, output_type="latent").float()
    return backbone_of(pipeline).unpacked(drawn, _latent_size(pipeline, sampling))


class _Kept(NamedTuple):
    """A picture that a search kept."""

    score: float
    seed: int
    picture: np.ndarray
    curve: np.ndarray
    candidates: np.ndarray


def _searched(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter,
    search: Search,
) -> Generated:
    """Search, and again where the best is not good enough."""
    found: list[list[_Kept]] = [[] for _ in prompts]
    for attempt in range(search.tries):
        missing = [n for n, kept in enumerate(found) if not kept or kept[0].score < search.minimum]
        if not missing:
            break
        texts = [prompts[n] for n in missing]
        firsts = [seeds[n] + attempt * search.candidates for n in missing]
        tried = _try(pipeline, texts, firsts, sampling, adapter, search)
        for n, kept in zip(missing, tried, strict=True):
            falling = sorted(found[n] + kept, key=lambda each: -each.score)
            found[n] = falling[: search.keep]
    kept = [each for best in found for each in best]
    return Generated(
        np.stack([each.picture for each in kept]),
        np.stack([each.curve for each in kept], axis=1),
        [each.seed for each in kept],
        np.stack([best[0].candidates for best in found], axis=1),
    )


def _try(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter,
    search: Search,
) -> list[list[_Kept]]:
    """What is kept of one try, per prompt, the best first."""
    count = search.candidates
    all_seeds = [seed + candidate for seed in seeds for candidate in range(count)]
    text = text_vectors(pipeline, prompts, adapter.config.text)
    searching = Searching(pipeline, adapter, text, search)
    with searching.run(sampling.correction):
        pictures = _sample(
            pipeline, prompts, all_seeds, sampling,
            num_images_per_prompt=count, callback_on_step_end=searching.last_step,
        )  # fmt: skip
    pool, left = searching.pool, iter(_bytes(pictures))
    curves, scores = np.stack([each.numpy() for each in pool.curves.values()]), pool.scores.numpy()
    return [
        [
            _Kept(scores[n, k], all_seeds[n * count + k], next(left), curves[:, n, k], scores[n])
            for k in best
        ]
        for n, best in enumerate(pool.kept().tolist())
    ]


def _sample(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, **more: Any
) -> Any:
    """What the pipeline gives, pictures in [0, 1] unless told; a seed for every row it denoises."""
    settings = {
        "num_inference_steps": sampling.steps,
        **backbone_of(pipeline).arguments(prompts, sampling.guidance),
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        "output_type": "np",
    }
    if sampling.size:
        settings |= dict(zip(("height", "width"), sampling.size, strict=True))
    return pipeline(list(prompts), **settings | more).images


def _latent_size(pipeline: Any, sampling: Sampling) -> tuple[int, int] | None:
    if sampling.size is None:
        return None
    return tuple(side // pipeline.vae_scale_factor for side in sampling.size)


def _bytes(pictures: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] as uint8."""
    return (pictures * 255).round().astype(np.uint8)


def _check(
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    adapter: DiscriminativeAdapter | None,
    search: Search | None,
) -> None:
    """Refuse what cannot be drawn."""
    if len(prompts) != len(seeds):
        raise ValueError(f"expected a seed per prompt; got {len(seeds)} for {len(prompts)}")
    if adapter is None and (sampling.corrects or search):
        raise ValueError(
            "self-correction and search need an adapter: give one, or no correction and no search"
        )


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
