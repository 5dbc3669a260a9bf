"""The demo's transformer in the host's class for Stable Diffusion 3, and through diffusers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import comfy.sample
import comfy.samplers
import numpy as np
import pytest
import torch
from demo_files import write_random_demo
from dpt_pack.dpt_core.correction import PRESETS
from dpt_pack.dpt_core.demo import load as diffusers_side
from dpt_pack.dpt_core.demo import transformer
from dpt_pack.dpt_core.demo.architectures import DIT
from dpt_pack.dpt_core.diffusers import self_correcting, text_vectors
from dpt_pack.nodes import demo_model
from dpt_pack.nodes.host.demo import load_demo
from dpt_pack.nodes.host.encode import encode_prompt
from runs import call, corrected, diffusers_picture, psnr, sample

from nodes import EmptyLatentImage, VAEDecode

PROMPT = "a red circle left of a blue square"
PROMPTS = ["", PROMPT, "three green triangles"]
STEPS, CFG, SEED = 6, 2.5, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("demo")
    write_random_demo(made)
    return made


@pytest.fixture(scope="module")
def host(folder):
    with torch.inference_mode():
        return load_demo(folder, DIT)


@pytest.fixture(scope="module")
def pipeline(folder):
    with torch.inference_mode(False):
        return diffusers_side.load_demo(folder, DIT).pipeline


def picture(pipeline, seed: int = SEED) -> np.ndarray:
    return diffusers_picture(pipeline, PROMPT, STEPS, CFG, seed)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_same_text(host, pipeline, prompt):
    context, _, pooled, _ = pipeline.encode_prompt(prompt)
    ((states, extra),) = encode_prompt(host.clip, prompt)
    assert states.shape == (1, transformer.TOKENS, 128)
    torch.testing.assert_close(states, context, atol=1e-4, rtol=0)
    for vector in (extra["dpt_text"]["pooled"], extra["pooled_output"]):
        torch.testing.assert_close(vector, pooled, atol=1e-4, rtol=0)


CORRECTIONS = {
    "plain": None,
    "published": {"strength": 0.5},
    "lagged": {"strength": 2.0, "mode": "lagged"},
    "annealed": {"strength": 0.5, "step": "annealed"},
}


@pytest.mark.parametrize("correction", CORRECTIONS.values(), ids=CORRECTIONS)
def test_same_picture_on_the_same_schedule(host, pipeline, correction):
    model, expected = host.model, picture(pipeline)
    if correction:
        plain, (model, _) = expected, corrected(model, host.adapter, **correction)
        wanted = replace(PRESETS["published"], **correction)
        adapter, text = host.adapter.checkpoint.adapter, text_vectors(pipeline, [PROMPT])
        with self_correcting(pipeline, adapter, text, wanted):
            expected = picture(pipeline)
        assert not np.array_equal(plain, expected)
    latent = call(EmptyLatentImage, width=128, height=128, batch_size=1)["samples"]
    found = comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(latent, SEED),
        CFG,
        comfy.samplers.sampler_object("euler"),
        pipeline.scheduler.sigmas,
        positive=encode_prompt(host.clip, PROMPT),
        negative=encode_prompt(host.clip, ""),
        latent_image=latent,
    )
    drawn = call(VAEDecode, samples={"samples": found}, vae=host.vae)
    assert drawn.shape == (1, 128, 128, 3)
    assert psnr(drawn.numpy(), expected) >= 60
    assert psnr(picture(pipeline, SEED + 1), expected) < 40


def test_the_node_gives_it(folder, monkeypatch):
    """As a user wires it: another sampler, a batch, and a search."""
    monkeypatch.setattr(demo_model, "load_demo", partial(load_demo, folder))
    model, clip, vae, adapter = demo_model.DemoModel.execute("dit").result
    assert adapter.config == transformer.ADAPTER
    latent = call(EmptyLatentImage, width=128, height=128, batch_size=2)
    run = {"positive": encode_prompt(clip, PROMPT), "negative": encode_prompt(clip, "")}
    run |= {"latent": latent, "steps": 4, "sampler": "dpmpp_2m"}
    plain = sample(model, **run)
    changed, scores = corrected(model, adapter, strength=5.0, step="annealed")
    moved = sample(changed, **run)
    assert plain.shape == moved.shape == (2, 4, 16, 16) and moved.isfinite().all()
    assert not torch.equal(plain, moved) and len(scores) == 4
    assert vae.decode(moved).isfinite().all()
    other, *_ = demo_model.DemoModel.execute().result
    with pytest.raises(ValueError, match="sd3"):
        corrected(other, adapter)
