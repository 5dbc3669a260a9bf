"""The demo model in the host: the same weights give what they give through diffusers."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import comfy.sample
import comfy.samplers
import comfy.sd
import latent_preview
import numpy as np
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod
from demo_files import demo_folder
from dpt_pack.dpt_core.correction import MODES, PRESETS
from dpt_pack.dpt_core.demo import load as diffusers_side
from dpt_pack.dpt_core.demo import model as sizes
from dpt_pack.dpt_core.diffusers import self_correcting, text_vectors
from dpt_pack.dpt_core.evaluation.scenes import WORLD, unique_phrase
from dpt_pack.dpt_core.shapes.pairs import scene_pair
from dpt_pack.dpt_core.shapes.scene import render
from dpt_pack.nodes import demo_model
from dpt_pack.nodes.alignment_score import AlignmentScore
from dpt_pack.nodes.apply_lora import ApplyLoRA
from dpt_pack.nodes.ground_phrase import GroundPhrase
from dpt_pack.nodes.host.demo import load_demo, outside_its_world
from dpt_pack.nodes.host.encode import encode_prompt
from dpt_pack.nodes.ksampler import KSampler
from dpt_pack.nodes.text_encode import TextEncode
from runs import call, corrected, diffusers_picture, distance, psnr, sample
from tiny_models import random_lora
from torchvision.ops import box_convert, box_iou

from nodes import CLIPTextEncode, EmptyLatentImage, VAEDecode

PROMPT = "a red circle left of a blue square"
PROMPTS = [
    "",
    PROMPT,
    "three green triangles",
    "A Quixotic zebra, über-blue!  [two] small <squares> & 7 stars",
    "naïve 図形 ☃",
]
STEPS, CFG, SEED = 10, 4.0, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_folder(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def host(folder):
    with torch.inference_mode():
        return load_demo(folder)


@pytest.fixture(scope="module")
def pipeline(folder):
    with torch.inference_mode(False):
        return diffusers_side.load_demo(folder).pipeline


def texts(clip, positive: str = PROMPT) -> dict[str, list]:
    return {"positive": encode_prompt(clip, positive), "negative": encode_prompt(clip, "")}


def test_prompts_outside_its_world_are_told(host, caplog):
    """In the words of the command line, on the node and in the log; other models are left alone."""
    Node = type("Node", (TextEncode,), {"hidden": SimpleNamespace(unique_id="1")})
    Node.execute(host.clip, PROMPT)
    assert not caplog.records
    Node.execute(host.clip, "a photo of a cat")
    assert "the shapes world cannot draw 'a photo of a cat'" in caplog.text
    other = SimpleNamespace(tokenizer=SimpleNamespace(clip_l=object()))
    assert outside_its_world(other, "a photo of a cat") == ""


def empty_latent(batch: int = 1) -> dict:
    return call(EmptyLatentImage, width=128, height=128, batch_size=batch)


def drawn(pipeline, seed: int = SEED) -> np.ndarray:
    return diffusers_picture(pipeline, PROMPT, STEPS, CFG, seed)


def test_same_noise_schedule(host, pipeline):
    cumulative = pipeline.scheduler.alphas_cumprod
    expected = ((1 - cumulative) / cumulative).sqrt()
    sampling = host.model.get_model_object("model_sampling")
    torch.testing.assert_close(sampling.sigmas, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_same_text(host, pipeline, prompt):
    ids = pipeline.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    (chunk,) = host.clip.tokenize(prompt)["l"]
    assert [token for token, _ in chunk] == ids[0].tolist()
    expected = pipeline.text_encoder(ids).last_hidden_state
    ((context, extra),) = encode_prompt(host.clip, prompt)
    torch.testing.assert_close(context, expected, atol=1e-4, rtol=0)
    end = (ids[0] == pipeline.tokenizer.eos_token_id).int().argmax()
    for vector in (extra["dpt_text"]["eos_hidden"], extra["pooled_output"]):
        torch.testing.assert_close(vector, expected[:, end], atol=1e-4, rtol=0)


def test_same_autoencoder(host, pipeline):
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = pipeline.vae.decode(latent).sample.movedim(1, -1) / 2 + 0.5
    torch.testing.assert_close(host.vae.decode(latent), expected.clamp(0, 1), atol=1e-4, rtol=0)
    images = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(2))
    expected = pipeline.vae.encode(images.movedim(-1, 1) * 2 - 1).latent_dist.mean
    assert distance(host.vae.encode(images), expected) < 1e-4


SAME = 60  # decibels
CORRECTIONS = {
    "plain": None,
    "published": {"strength": 0.5},
    "normalised": {"strength": 0.002, "step": "normalised", "inner_steps": 2},
    "lagged": {"strength": 2.0, "mode": "lagged"},
    "annealed": {"strength": 0.5, "step": "annealed"},
    "guidance": {"strength": 0.5, "step": "annealed", "mode": "guidance"},
}
"""Gentle: the score is the best query's, and after longer moves rounding chooses another one."""


@pytest.mark.parametrize("correction", CORRECTIONS.values(), ids=CORRECTIONS)
def test_same_picture_on_the_same_schedule(host, pipeline, correction):
    """Euler over the sigmas of the pipeline's DDIM is the same method in other words."""
    model, expected = host.model, drawn(pipeline)
    if correction:
        plain, (model, _) = expected, corrected(model, host.adapter, **correction)
        wanted = replace(PRESETS["published"], **correction)
        adapter = host.adapter.checkpoint.adapter
        text = text_vectors(pipeline, [PROMPT])
        with self_correcting(pipeline, adapter, text, wanted):
            expected = drawn(pipeline)
        assert psnr(plain, expected) < SAME - 10
    model_sampling = host.model.get_model_object("model_sampling")
    sigmas = model_sampling.sigma(torch.cat((pipeline.scheduler.timesteps, torch.zeros(1))))
    latent = empty_latent()["samples"]
    result = comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(latent, SEED),
        CFG,
        comfy.samplers.sampler_object("euler"),
        sigmas,
        **texts(host.clip),
        latent_image=latent,
    )
    result = result / (1 + sigmas[-1] ** 2).sqrt()  # DDIM ends at timestep 0, not without noise
    picture = call(VAEDecode, samples={"samples": result}, vae=host.vae)
    assert picture.shape == (1, 128, 128, 3)
    assert psnr(picture.numpy(), expected) >= SAME
    assert psnr(drawn(pipeline, SEED + 1), expected) < 30


def test_same_picture_from_a_users_graph(host, pipeline):
    """KSampler with ddim and sgm_uniform is the pipeline as it comes."""
    run = {"steps": STEPS, "cfg": CFG, "seed": SEED, "sampler": "ddim", "scheduler": "sgm_uniform"}
    latent = sample(host.model, **texts(host.clip), latent=empty_latent(), **run)
    picture = call(VAEDecode, samples={"samples": latent}, vae=host.vae)
    assert psnr(picture.numpy(), drawn(pipeline)) >= 30


def offline(*args, **kwargs):
    raise AssertionError("the demo model used the network")


def test_node_works_twice_without_a_network(folder, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(demo_model, "load_demo", partial(load_demo, folder))
    model, clip, vae, adapter = demo_model.DemoModel.execute().result
    run = {"positive": call(CLIPTextEncode, clip=clip, text=PROMPT), "steps": 2}
    run["negative"] = call(CLIPTextEncode, clip=clip, text="")
    first, second = (sample(model, latent=empty_latent(2), **run) for _ in range(2))
    assert first.shape == (2, 4, 16, 16)
    assert torch.equal(first, second)
    again = sample(demo_model.DemoModel.execute().result[0], latent=empty_latent(2), **run)
    assert torch.equal(first, again)
    assert vae.decode(first).isfinite().all()
    assert adapter.config == sizes.ADAPTER


def as_executed(node) -> type:
    """A node with the hidden inputs that the host's executor sets."""
    return type(node.__name__, (node,), {"hidden": SimpleNamespace(unique_id="1")})


def test_loras_stack(host):
    run = {**texts(host.clip), "latent": empty_latent(), "steps": 2}
    plain = sample(host.model, **run)
    tuned = call(ApplyLoRA, model=host.model, adapter=host.adapter, strength=1.0)
    other = {key.removeprefix("unet."): value for key, value in random_lora(host.model, 1).items()}
    both, _ = comfy.sd.load_lora_for_models(tuned, None, other, 1.0, 0)
    results = [plain, sample(tuned, **run), sample(both, **run)]
    for index, result in enumerate(results):
        assert result.isfinite().all()
        assert all(distance(result, earlier) > 1e-3 for earlier in results[:index])
    assert torch.equal(sample(host.model, **run), plain)


@pytest.mark.parametrize("mode", MODES)
def test_corrects_itself(host, mode):
    positive, negative = texts(host.clip).values()
    run = {
        "model": host.model, "seed": SEED, "steps": 3, "cfg": CFG, "sampler_name": "euler",
        "scheduler": "normal", "positive": positive, "negative": negative, "denoise": 1.0,
        "latent_image": empty_latent(), "start_percent": 0.0, "end_percent": 1.0,
        "every_n_steps": 1, "mode": mode, "preset": "custom",
    }  # fmt: skip
    node = as_executed(KSampler)
    plain = node.execute(**run, strength=0.0).result[0]["samples"]
    latent, report = node.execute(**run, strength=500.0, adapter=host.adapter).result
    assert distance(latent["samples"], plain) > 1e-3
    assert report.ndim == 4


@pytest.mark.parametrize("encoder", [CLIPTextEncode, TextEncode])
def test_scores_pictures(host, encoder):
    images = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(2))
    mean, scores, text = as_executed(AlignmentScore).execute(
        model=host.model,
        adapter=host.adapter,
        vae=host.vae,
        images=images,
        positive=call(encoder, clip=host.clip, text=PROMPT),
        timestep=300,
        draws=2,
        seed=1,
    ).result  # fmt: skip
    assert len(scores) == 2
    assert all(-1 <= score <= 1 for score in scores)
    assert mean == pytest.approx(sum(scores) / 2)
    assert "image 2" in text


@pytest.mark.parametrize("method", LatentPreviewMethod)
def test_preview(host, monkeypatch, method):
    """Previews while sampling work; SD 1.x's own preview decoder, if installed, is not used."""
    monkeypatch.setattr(latent_preview.args, "preview_method", method)
    shown = latent_preview.get_previewer(host.model.load_device, host.model.model.latent_format)
    if method != LatentPreviewMethod.NoPreviews:
        assert isinstance(shown, latent_preview.Latent2RGBPreviewer)
        picture = shown.decode_latent_to_preview(torch.zeros(1, 4, 16, 16))
        assert picture.size == (16, 16)


def test_finds_what_phrases_name(host):
    """Referring expressions on scenes that training did not see: the surest box, IoU ≥ 0.5."""
    hits = []
    for index in range(60):
        pair = scene_pair(WORLD, index)
        if (asked := unique_phrase(pair)) is None:
            continue
        image = torch.tensor(render(pair.scene))[None] / 255
        ((found,), *_) = as_executed(GroundPhrase).execute(
            model=host.model, adapter=host.adapter, vae=host.vae, images=image,
            phrase=encode_prompt(host.clip, asked.text), threshold=0.0, max_boxes=1, timestep=500,
            seed=index,
        ).result  # fmt: skip
        (box,) = found
        corners = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
        truth = box_convert(image.shape[1] * torch.tensor([asked.box]), "cxcywh", "xyxy")
        hits.append(float(box_iou(torch.tensor([corners]), truth)) >= 0.5)
    assert len(hits) > 30
    assert sum(hits) / len(hits) >= 0.75
