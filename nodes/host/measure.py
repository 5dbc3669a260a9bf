"""Alignment scores of finished pictures, through the host's own sampling machinery."""

from __future__ import annotations

from typing import Any

import comfy.model_management as management
import comfy.samplers
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from comfy.utils import ProgressBar

from .adapter import LoadedAdapter
from .rows import ModelCall, conditional_rows
from .scoring import Scorer
from .texts import Targets
from .unet import check_backbone

KEY = "dpt_measure"


class Measurement(comfy.samplers.Sampler):
    """A "sampler" that noises the latent to one timestep and scores it, once per draw.

    Being a sampler it gets conditioning, ControlNets, LoRAs, hooks and memory exactly as a real
    one does.

    Args:
        adapter: the adapter.
        draws: noise draws.
        seed: seed of the noise; all pictures share each draw, so their scores compare.

    Attributes:
        scores: `[draws, B]` after a run.
    """

    def __init__(self, adapter: LoadedAdapter, draws: int, seed: int) -> None:
        self._adapter = adapter
        self._draws = draws
        self._seed = seed
        self.scores = torch.empty(0)

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
        self._targets = Targets(model_wrap.conds, self._adapter.config, model)
        self._scorer = Scorer(self._adapter, model)
        generator = torch.Generator().manual_seed(self._seed)
        progress = ProgressBar(self._draws)
        batch, (first, *_) = len(latent_image), sigmas
        draws = torch.randn(self._draws, *latent_image[0].shape, generator=generator)
        scores = []
        for some in draws.to(latent_image).split(_draws_that_fit(model, latent_image)):
            throw_exception_if_processing_interrupted()
            noise = some.repeat_interleave(batch, dim=0)  # of each draw, all pictures
            latents = latent_image.repeat(len(some), 1, 1, 1)
            x = model.model_sampling.noise_scaling(first, noise, latents)
            found = self._scores_of(model, model_wrap.conds, x, first.expand(len(x)), extra_args)
            scores.append(found.view(len(some), batch))
            progress.update(len(some))
        self.scores = torch.cat(scores)
        return latent_image

    def _scores_of(
        self, model: Any, conds: dict, x: torch.Tensor, sigma: torch.Tensor, extra_args: dict
    ) -> torch.Tensor:
        """Scores `[B]` at one noise level, averaged over the conditioning's chunks."""
        self._found: list[torch.Tensor] = []
        positive = conds["positive"]
        self._targets.register([positive])
        comfy.samplers.calc_cond_batch(model, [positive], x, sigma, extra_args["model_options"])
        if not self._found:
            raise ValueError(
                "no conditioning is active at this timestep: choose another one, or remove "
                "ConditioningSetTimestepRange"
            )
        return torch.cat(self._found).view(-1, len(x)).mean(0).cpu()

    def apply_model(
        self,
        executor: Any,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Around the model call: score its rows; nothing above the tap is computed."""
        inputs |= {"c_concat": c_concat, "c_crossattn": c_crossattn, "control": control}
        call = ModelCall(x, sigma, transformer_options or {}, inputs)
        if (rows := conditional_rows(call, self._targets)) is not None:
            self._found.append(self._scorer.scores(executor, call, rows))
        return torch.zeros_like(x)


def _draws_that_fit(model: Any, latents: torch.Tensor) -> int:
    """How many draws of all pictures go through the UNet together; at least 1."""
    free = management.get_free_memory(latents.device)
    return max(1, int(free // model.memory_required(list(latents.shape))))


def measure(
    model: Any,
    adapter: LoadedAdapter,
    latent: torch.Tensor,
    positive: list,
    timestep: int,
    draws: int,
    seed: int,
) -> torch.Tensor:
    """Alignment scores of latents with a conditioning.

    Args:
        model: the host's ModelPatcher.
        adapter: the adapter.
        latent: `[B, 4, h, w]` as a VAE encodes it.
        positive: the conditioning to compare with.
        timestep: noise level in [0, 999] at which the adapter reads.
        draws: noise draws to average over, ≥ 1.
        seed: seed of the noise.

    Returns:
        `[draws, B]` in [-1, 1].

    Raises:
        ValueError: the adapter does not fit the model or the text.
    """
    check_backbone(model, adapter.config)
    measurement = Measurement(adapter, draws, seed)
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, measurement.apply_model)
    model.set_additional_models(KEY, [adapter.patcher])
    sigma = model.get_model_object("model_sampling").sigma(torch.tensor([timestep]))
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    guider.sample(
        torch.zeros_like(latent),
        latent,
        measurement,
        torch.cat((sigma, torch.zeros(1))),
        seed=seed,
    )
    return measurement.scores
