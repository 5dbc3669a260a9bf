"""Whole runs of the published sampling loop, reproduced by the host's own sampler."""

from __future__ import annotations

from dataclasses import replace

import comfy.samplers
import pytest
import torch
from dpt_pack.dpt_core.correction import PRESETS
from dpt_pack.nodes.host.adapter import load_adapter
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.lora import with_lora
from tiny_models import golden_model

RUNS = {"eta0": 0.0, "eta0.5": 0.5, "eta_strong": 200.0, "eta0.5_lora": 0.5}
"""Recorded runs and their strength."""


def conditioning(stack, name: str) -> list:
    """The recorded prompts as a CONDITIONING; pictures of the batch get one each."""
    pooled = stack.text[f"pooled_{name}"]
    vectors = {"eos_hidden": pooled, "pooled": pooled}
    return [[stack.text[name], {"pooled_output": pooled, "dpt_text": vectors}]]


def sample(model, stack, timesteps, start) -> list[torch.Tensor]:
    """Latents in the published, variance-preserving space after every step."""
    sampling = model.get_model_object("model_sampling")
    sigmas = torch.cat([sampling.sigma(timesteps), torch.zeros(1)])
    scale = (sigmas**2 + 1).rsqrt().view(-1, 1, 1, 1, 1)
    latents = []
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning(stack, "cond"), conditioning(stack, "uncond"))
    guider.set_cfg(7.5)
    noise = start * (sigmas[0] ** 2 + 1).sqrt() / sigmas[0]
    sampler = comfy.samplers.KSAMPLER(comfy.samplers.k_diffusion_sampling.sample_euler)
    guider.sample(
        noise,
        torch.zeros_like(noise),
        sampler,
        sigmas,
        disable_pbar=True,
        callback=lambda step, denoised, x, steps: latents.append(x.clone()),
    )
    return [latent * a for latent, a in zip(latents, scale, strict=False)]


@pytest.mark.parametrize(
    "stack, name",
    [("sd21", name) for name in RUNS] + [("sd1x", "eta0.5"), ("sd1x", "eta0.5_lora")],
    indirect=["stack"],
)
def test_trajectory(stack, name):
    strength, recorded = RUNS[name], stack.load_run(name)
    adapter = load_adapter(str(stack.checkpoint))
    model = golden_model(stack)
    if name.endswith("_lora"):
        model = with_lora(model, adapter, 1.0)
    scores = {}
    model = with_self_correction(
        model,
        adapter,
        replace(PRESETS["published"], strength=strength),
        lambda step, steps, s: scores.setdefault(step, s),
    )
    latents = sample(model, stack, recorded["timesteps"], recorded["latents"][0])
    for step, latent in enumerate(latents):
        expected = recorded["latents"][step]
        assert (latent - expected).norm() / expected.norm() <= 1e-4, step
        if strength:
            assert torch.allclose(scores[step], recorded["s"][step], atol=1e-4), step
    assert len(latents) == len(recorded["timesteps"])
