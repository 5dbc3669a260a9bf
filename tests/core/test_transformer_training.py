"""Probing and tuning of transformers, and of SDXL, in diffusers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmark_runs import invoke
from PIL import Image
from tiny_pipelines import TAPS, adapter_for, pipeline_of, sdxl_pipeline

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backbones.prompts import moments_of, own_span
from dpt_core.backbones.registry import backbone_of
from dpt_core.checkpoint import load_checkpoint
from dpt_core.reading import alignment_scores
from dpt_core.training.backbone import Backbone
from dpt_core.training.data.examples import GroundingExample, MatchingExample
from dpt_core.training.discrimination import DiscriminationTask, Examples
from dpt_core.training.lora import add_lora

SIDE = 48
WORDS = ("a red circle", "a blue square", "two green triangles")
FAMILIES = (*TAPS, "sdxl")


def any_pipeline(family: str):
    return sdxl_pipeline() if family == "sdxl" else pipeline_of(family)


def examples(size: int = 2) -> Examples:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(size, 4, 3, SIDE, SIDE, generator=generator) * 2 - 1
    matching = [MatchingExample(each[:3], WORDS) for each in pictures]
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    grounding = [GroundingExample(each[3], WORDS[0], boxes, (((0, 12),),)) for each in pictures]
    return Examples(matching, grounding)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def test_probing_learns(family):
    """A few steps on the same examples: the loss falls, and only the adapter is trained."""
    pipeline = any_pipeline(family)
    backbone = Backbone.of(pipeline)
    if family == "sdxl":
        adapter = sdxl_adapter(pipeline)
    else:
        adapter = adapter_for(family, pipeline)
    adapter.requires_grad_(True)
    task = DiscriminationTask(backbone, adapter)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    optimiser = torch.optim.Adam(adapter.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        loss = task(examples())["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    after = backbone.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def sdxl_adapter(pipeline):
    backbone = backbone_of(pipeline)
    width = backbone.text_vectors(["x"], "eos_hidden").shape[-1]
    from dpt_core.config import AdapterConfig

    return DiscriminativeAdapter(
        AdapterConfig(
            in_channels=backbone.taps()["up1"], text_width=width, width=16, heads=2,
            feed_forward=32, grounding_queries=4, classes=8, contrastive_width=8, phrase_width=32,
        )
    )  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
def test_tuning_trains_the_lora(family, checkpointing):
    """The pass of the right pair also denoises; with recomputation the gradient is the same."""
    pipeline = any_pipeline(family)
    backbone = Backbone.of(pipeline)
    adapter = sdxl_adapter(pipeline) if family == "sdxl" else adapter_for(family, pipeline)
    torch.manual_seed(0)
    add_lora(backbone.network)
    if checkpointing:
        backbone.network.enable_gradient_checkpointing()
    task = DiscriminationTask(backbone, adapter.requires_grad_(True).train(False), denoise=True)
    task.train().adapter.eval()
    torch.manual_seed(1)
    losses = task(examples())
    assert 0 < losses["mse"] < 100
    losses["total"].backward()
    grads = {n: p.grad for n, p in task.network.named_parameters() if p.requires_grad}
    ups = [grad for name, grad in grads.items() if "lora_B" in name and grad is not None]
    assert ups and all(grad.isfinite().all() for grad in ups)
    total = float(sum(grad.square().sum() for grad in ups)) ** 0.5
    known = GRADIENTS.setdefault(family, total)
    assert total == pytest.approx(known, rel=1e-4)


GRADIENTS: dict[str, float] = {}


@pytest.fixture
def data_folder(tmp_path):
    rows, generator = [], np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        rows.append(
            {
                "image": f"{index}.png", "caption": f"{WORDS[index % 3]} in picture {index}",
                "negative": WORDS[(index + 1) % 3],
                "boxes": [{"phrase": WORDS[index % 3], "box": [4, 4, 20, 20]}],
            }
        )  # fmt: skip
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.parametrize("name", ["sd3", "flux", "z_image"])
def test_command_line(name, data_folder, tmp_path):
    """From a model directory to a checkpoint that scores, corrects and carries a LoRA."""
    pipeline = pipeline_of(name)
    pipeline.save_pretrained(tmp_path / "model")
    table = data_folder / "data.jsonl"
    common = [
        "--matching", table, "--grounding", table, "--images", data_folder, "--size", SIDE,
        "--steps", 2, "--batch-size", 2, "--device", "cpu",
    ]  # fmt: skip
    invoke("train", "probing", tmp_path / "model", *common, "--output", tmp_path / "one")
    probed = load_checkpoint(tmp_path / "one" / "adapter.safetensors")
    backbone = backbone_of(pipeline)
    assert probed.config.family == name and probed.config.text == backbone.texts[0]
    assert probed.config.tap in backbone.taps()
    if probed.config.text == "mean":
        texts = [f"{WORDS[n % 3]} in picture {n}" for n in range(4)]
        vectors = backbone.text_vectors(texts, "mean")
        assert float(probed.adapter.compared(vectors).abs().mean()) < 3
        assert not torch.equal(probed.adapter.text_mean, torch.zeros(probed.config.text_width))
    picture = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    score = alignment_scores(pipeline, probed.adapter, picture, ["a red circle"], draws=1)
    assert -1 <= float(score) <= 1
    invoke(
        "train", "tuning", tmp_path / "model", tmp_path / "one" / "adapter.safetensors", *common,
        "--accumulate", 1, "--output", tmp_path / "two",
    )  # fmt: skip
    tuned = tmp_path / "two" / "dpt.safetensors"
    lora = load_checkpoint(tuned).lora
    assert lora and all(key.startswith("diffusion_model.") for key in lora)
    Image.fromarray(picture[0]).save(tmp_path / "x.png")
    said = invoke("score", tmp_path / "model", "a dog", tmp_path / "x.png", "--adapter", tuned)
    assert "x.png" in said
    drawn = [
        "--width", SIDE, "--steps", 2, "--count", 1, "--guidance", 1, "--out", tmp_path / "out",
        "--candidates", 2,
    ]  # fmt: skip
    invoke("generate", tmp_path / "model", "a dog", "--adapter", tuned, *drawn)
    (picture,) = (tmp_path / "out").glob("*.png")
    assert Image.open(picture).size == (SIDE, SIDE)


def test_own_tokens():
    """What a template adds belongs to neither end; of an empty prompt nothing is left."""
    template = [1, 2, 3, 9, 8]
    assert own_span([1, 2, 3, 5, 6, 9, 8], template) == (3, 5)
    assert own_span(template, template) == (5, 5)


@pytest.mark.parametrize("name", ["qwen_image", "z_image"])
def test_text_vectors_are_of_the_prompt_alone(name):
    """The mean over the states of its own tokens; zeros for no prompt; padding changes nothing."""
    backbone = backbone_of(pipeline_of(name))
    prompts = ["a red cube", "", "a blue sphere on the left of a green cone"]
    together = backbone.text_vectors(prompts, "mean")
    assert not together[1].any() and together[0].any()
    for prompt, vector in zip(prompts, together, strict=True):
        torch.testing.assert_close(
            backbone.text_vectors([prompt], "mean")[0], vector, atol=1e-5, rtol=1e-4
        )
    inputs = backbone.conditioning(prompts[:1], (6, 6))
    states = inputs["texts" if name == "z_image" else "encoder_hidden_states"][0]
    spoken = {len(prompts[0])}  # a token a byte
    means = {n: states[n : n + min(spoken)].mean(0) for n in range(len(states))}
    assert any(torch.allclose(mean, together[0], atol=1e-5) for mean in means.values())


def test_moments():
    vectors = torch.randn(200, 4) * torch.tensor([1.0, 50.0, 0.0, 2.0]) + 3
    mean, scale = moments_of(vectors)
    torch.testing.assert_close(mean, vectors.mean(0))
    assert scale[2] > 0.1 and scale[1] > 40
