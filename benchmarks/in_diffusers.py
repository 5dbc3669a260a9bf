"""Steps of self-correcting sampling on a diffusers UNet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from dpt_core import PRESETS, diffusers
from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backbones.base import Backbone, BackboneCall

from .sizes import UNETS, adapter_config, inputs_of
from .timing import Clock, Run

GUIDANCE = 7.5


def whole_unet_score(
    backbone: Backbone, adapter: Any, call: BackboneCall, text: Any, forward: Any
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The score as the published code computes it: the whole UNet is in the graph."""

    def score(z: torch.Tensor) -> torch.Tensor:
        scores: list[torch.Tensor] = []

        def read(features: torch.Tensor) -> torch.Tensor:
            scores.append(diffusers.features_score(backbone, adapter, features, call, text))
            return features

        with backbone.tapped(adapter.config.tap, call, read):
            backbone.run(forward, replace(call, x=z))
        return scores[0]

    return score


def build(name: str, device: str, dtype: torch.dtype, batch: int, side: int) -> dict[str, Run]:
    """A UNet with random weights and one run per way of sampling it.

    Args:
        name: of :data:`~benchmarks.sizes.UNETS`.
        device, dtype: of the UNet; the adapter is float32.
        batch: pictures.
        side: of the latent.

    Call :func:`benchmarks.in_comfyui.enter` before: the tests' helpers live beside the host.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from tiny_models import randomise

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name])
    unet = unet.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    randomise(unet, seed=0)
    config = adapter_config(name)
    adapter = DiscriminativeAdapter(config).requires_grad_(False).eval().to(device)
    text = torch.randn(batch, config.text_width, device=device)
    (latents, timestep, context), more = inputs_of(unet, 2 * batch, side)
    clock = Clock(device)

    def step() -> None:
        unconditional, conditional = unet(latents, timestep, context, **more).sample.chunk(2)
        unconditional + GUIDANCE * (conditional - unconditional)

    pipeline = SimpleNamespace(unet=unet, scheduler=DDIMScheduler())

    def run(
        strength: float | None, mode: str = "exact", whole: bool = False
    ) -> Callable[[], list[float]]:
        def timed() -> list[float]:
            correcting = nullcontext()
            if strength is not None:
                wanted = replace(PRESETS["published"], strength=strength, mode=mode)
                correcting = diffusers.self_correcting(pipeline, adapter, text, wanted)
            published = patch.object(diffusers, "score_function", whole_unet_score)
            with torch.no_grad(), correcting, published if whole else nullcontext():
                start = clock()
                step()
                return [clock() - start]

        return timed

    return {
        "plain": run(None), "off": run(0.0), "exact": run(0.5), "lagged": run(0.5, "lagged"),
        "published": run(0.5, whole=True),
    }  # fmt: skip
