"""One reading of finished pictures through the host's own sampling machinery.

Being a "sampler" it gets conditioning, ControlNets, LoRAs, hooks and memory exactly as a real one
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import comfy.model_management as management
import comfy.samplers
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from comfy.utils import ProgressBar

from ...dpt_core.reading import whole_cells
from .adapter import LoadedAdapter
from .backbones.registry import check_backbone
from .calls import ModelCall
from .correction import without_self_correction
from .noise import HostNoise
from .rows import Targets
from .scoring import ApplyModel, Scorer

KEY = "dpt_read"

Found = TypeVar("Found")


class Batch(NamedTuple, Generic[Found]):
    """What was read of some noise draws of all pictures.

    Attributes:
        draws: how many.
        found: what the callback returned for each model call; rows go by chunk of the
            conditioning, then draw, then picture.
    """

    draws: int
    found: list[Found]


class Reading(comfy.samplers.Sampler):
    """A "sampler" that noises the latents to one level and has the model called once a draw.

    Args:
        adapter: the adapter.
        noise: `[draws, C, h, w]`; all pictures share each draw, so they compare.
        read: called with this reading, the host's `apply_model` and each call.
        progress: the bar to move on by each draw; by default one of this reading's own.

    Attributes:
        positive: the conditioning's entries as processed by the host, during a run.
        scorer: reads the model, during a run.
        batches: what was read, after a run.
    """

    def __init__(
        self,
        adapter: LoadedAdapter,
        noise: torch.Tensor,
        read: Callable[[Reading, ApplyModel, ModelCall], Any],
        progress: ProgressBar | None = None,
    ) -> None:
        self._adapter, self._noise, self._read = adapter, noise, read
        self._progress = progress
        self.batches: list[Batch] = []

    @cached_property
    def targets(self) -> Targets:
        """What the rows of a call should agree with."""
        return Targets({"positive": self.positive}, self._adapter.config, self.scorer.backbone)

    def sample(
        self,
        model_wrap: Any,
        sigmas: torch.Tensor,
        extra_args: dict,
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: Any = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        model = model_wrap.inner_model
        self.positive, self.scorer = model_wrap.conds["positive"], Scorer(self._adapter, model)
        options = extra_args["model_options"]
        progress = self._progress or ProgressBar(len(self._noise))
        for some in self._noise.to(latent_image).split(_draws_that_fit(model, latent_image)):
            throw_exception_if_processing_interrupted()
            repeated = some.repeat_interleave(len(latent_image), dim=0)  # of a draw, all pictures
            latents = latent_image.repeat(len(some), *[1] * (latent_image.ndim - 1))
            x = model.model_sampling.noise_scaling(sigmas[0], repeated, latents)
            self.batches.append(Batch(len(some), []))
            sigma = sigmas[0].expand(len(x))
            comfy.samplers.calc_cond_batch(model, [self.positive], x, sigma, options)
            if not self.batches[-1].found:
                raise ValueError(
                    "no conditioning is active at this timestep: choose another one, or remove "
                    "ConditioningSetTimestepRange"
                )
            progress.update(len(some))
        return latent_image

    def apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around the model call: read it; nothing is denoised."""
        call = ModelCall.of_arguments(*args, **inputs)
        self.batches[-1].found.append(self._read(self, executor, call))
        return torch.zeros_like(call.x)


def read_once(
    model: Any,
    adapter: LoadedAdapter,
    positive: list,
    latents: torch.Tensor,
    noise: torch.Tensor,
    level: float,
    read: Callable[[Reading, ApplyModel, ModelCall], Found],
    progress: ProgressBar | None = None,
) -> Iterator[Batch[Found]]:
    """Noise latents to one level and read the model there.

    A correction that an earlier node put on the model plays no part.

    Args:
        model: the host's ModelPatcher.
        adapter: the adapter.
        positive: the conditioning that the model is called with.
        latents: `[B, C, h, w]` as a VAE encodes them.
        noise: `[draws, C, h, w]`.
        level: the adapter's timestep, in [0, 1000).
        read, progress: see :class:`Reading`.

    Raises:
        ValueError: the adapter does not fit the model, or no conditioning is active at the level.
    """
    check_backbone(model, adapter.config)
    reading = Reading(adapter, noise, read, progress)
    model = without_self_correction(model).clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, reading.apply_model)
    model.set_additional_models(KEY, [adapter.patcher])
    sigma = HostNoise(model.get_model_object("model_sampling")).sigma(level)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    guider.sample(torch.zeros_like(latents), latents, reading, torch.tensor([sigma, 0.0]), seed=0)
    return iter(reading.batches)


def encode_pictures(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Latents `[B, C, h, w]` or `[B, C, 1, h, w]` of pictures `[B, H, W, C]` in [0, 1].

    Raises:
        ValueError: there is no VAE.
    """
    if vae is None:
        raise ValueError("vae is missing: the checkpoint has none; load one with VAELoader")
    pixels = whole_cells(images[..., :3].movedim(-1, 1), vae.spacial_compression_encode())
    pixels = pixels.movedim(1, -1)
    if getattr(vae, "latent_dim", 2) == 3:  # a video VAE takes a batch for the frames of one film
        return torch.cat([vae.encode(picture) for picture in pixels.split(1)])
    return vae.encode(pixels)


def _draws_that_fit(model: Any, latents: torch.Tensor) -> int:
    """How many draws of all pictures go through the model together; at least 1."""
    free = management.get_free_memory(latents.device)
    return max(1, int(free // model.memory_required(list(latents.shape))))
