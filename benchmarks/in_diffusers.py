"""Steps of self-correcting sampling on a diffusers UNet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backends import diffusers as backend
from dpt_core.features import FeatureTap
from dpt_core.score import alignment_score

from .sizes import UNETS, adapter_config, inputs_of
from .timing import Clock, Run

GUIDANCE = 7.5


def whole_unet_score(
    unet: Any, adapter: Any, timestep: Any, context: Any, text: Any, **inputs: Any
):
    """The score as the published code computes it: the whole UNet is in the graph."""

    def score(z: torch.Tensor) -> torch.Tensor:
        with FeatureTap(unet, adapter.config.tap) as read:
            unet(z, timestep, context, **inputs)
        timesteps = torch.as_tensor(timestep, device=z.device).expand(len(z))
        return alignment_score(adapter.match(read.features.float(), timesteps), text.float())

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
    from diffusers import UNet2DConditionModel
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

    def run(
        strength: float | None, mode: str = "exact", whole: bool = False
    ) -> Callable[[], list[float]]:
        def timed() -> list[float]:
            correcting = (
                nullcontext()
                if strength is None
                else backend.self_correcting(unet, adapter, text, strength, mode=mode)
            )
            published = patch.object(backend, "score_function", whole_unet_score)
            with torch.no_grad(), correcting, published if whole else nullcontext():
                start = clock()
                step()
                return [clock() - start]

        return timed

    return {
        "plain": run(None), "off": run(0.0), "exact": run(0.5), "lagged": run(0.5, "lagged"),
        "published": run(0.5, whole=True),
    }  # fmt: skip
