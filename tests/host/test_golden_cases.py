"""Recorded predictions, scores and gradients, through the host's UNet carrying the same weights."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management as management
import pytest
import torch
from dpt_pack.dpt_core.lora import lora_key, merge_lora
from dpt_pack.nodes.host.adapter import load_adapter
from dpt_pack.nodes.host.calls import ModelCall
from dpt_pack.nodes.host.lora import with_lora
from dpt_pack.nodes.host.rows import ConditionalRows
from dpt_pack.nodes.host.scoring import Scorer
from tiny_models import golden_model


@pytest.mark.parametrize("lora", [False, True])
def test_cases(stack, close, lora):
    adapter, model = load_adapter(str(stack.checkpoint)), golden_model(stack)
    if lora:
        model = with_lora(model, adapter, 1.0)
    management.load_models_gpu([model, adapter.patcher])
    scorer, sampling = Scorer(adapter, model.model), model.model.model_sampling
    inputs, recorded = stack.load("cases"), stack.load("lora_cases" if lora else "cases")
    names = sorted({key.split(".")[0] for key in recorded if key.endswith(".grad")})
    for name in names:
        z, timesteps = inputs[f"{name}.latent"], inputs[f"{name}.timestep"]
        sigma = sampling.sigma(timesteps)
        scale = (sigma**2 + 1).rsqrt().view(-1, 1, 1, 1)
        call = ModelCall(z / scale, sigma, {}, {"c_crossattn": stack.text["cond"]})
        rows = ConditionalRows(
            index=torch.arange(len(z)),
            image=torch.arange(len(z)),
            text=stack.text["pooled_cond"],
            areas=[None] * len(z),
        )
        scores, gradient = scorer.gradients(model.model.apply_model, call, rows, call.x)
        close(scores, recorded[f"{name}.s"])
        close(scorer.scores(model.model.apply_model, call, rows), recorded[f"{name}.s"])
        close(gradient / scale, recorded[f"{name}.grad"])
        noise = (call.x - call.run(model.model.apply_model)) / sigma.view(-1, 1, 1, 1)
        close(noise, recorded[f"{name}.noise_pred"])
    assert names


def test_feed_forward_layers(stack, close):
    """A LoRA of feed-forward layers does in the host what it does in diffusers."""
    generator = torch.Generator().manual_seed(3)
    unet, lora = stack.unet(), {}
    for name, module in unet.named_modules():
        if name.endswith((".to_q", ".to_out.0", ".ff.net.0.proj", ".ff.net.2")):
            out, into = module.weight.shape
            lora[lora_key(name, "down")] = torch.randn(2, into, generator=generator) / into**0.5
            lora[lora_key(name, "up")] = torch.randn(out, 2, generator=generator) * 0.3
    merge_lora(unet, lora)
    adapter = load_adapter(str(stack.checkpoint))
    adapter = replace(adapter, checkpoint=replace(adapter.checkpoint, lora=lora))
    model = with_lora(golden_model(stack), adapter, 1.0)
    management.load_models_gpu([model])
    z, timesteps = torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([500])
    sigma = model.model.model_sampling.sigma(timesteps)
    text = stack.text["cond"][:1]
    call = ModelCall(z * (sigma**2 + 1).sqrt().view(-1, 1, 1, 1), sigma, {}, {"c_crossattn": text})
    denoised = call.run(model.model.apply_model)
    noise = (call.x - denoised) / sigma.view(-1, 1, 1, 1)
    close(noise, unet(z, timesteps, text).sample)
