"""A LoRA tuned inside the host: what is trained is what loads, and the model is as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import folder_paths
import pytest
import torch
from demo_files import demo_folder
from dpt_pack.dpt_core.demo.architectures import DIT
from dpt_pack.dpt_core.demo.architectures import UNET as UNET_DEMO
from dpt_pack.dpt_core.demo.load import load_demo as load_for_diffusers
from dpt_pack.dpt_core.training.loop import Interrupted
from dpt_pack.dpt_core.training.observer import Observer
from dpt_pack.dpt_core.training.rewards import LEVELS, RewardPrompt, reward_errors, reward_scores
from dpt_pack.dpt_core.training.tuning_settings import STRENGTHS, TuneSettings
from dpt_pack.nodes.host.backbones.registry import backbone_of
from dpt_pack.nodes.host.demo import load_demo
from dpt_pack.nodes.host.encode import encode_prompt
from dpt_pack.nodes.host.lora import with_lora
from dpt_pack.nodes.host.passes import with_passes
from dpt_pack.nodes.host.studio import HostStudio, TrainedLora, projections, tune
from dpt_pack.nodes.host.text_store import HostTexts
from dpt_pack.nodes.tune_lora import TuneLoRA
from runs import distance
from safetensors.torch import load_file
from test_no_leaks import everything
from tiny_models import tiny_adapter, tiny_clip, tiny_model, tiny_vae
from tiny_transformers import adapter_for, shape_for
from toy_runs import UNET, StopAt, encode_for, toy_model

FAMILIES = [UNET, "z_image", "flux", "qwen_image"]
PROMPTS = [f"prompt {n}" for n in range(5)]
SETTINGS = TuneSettings(steps=8, batch_size=4, learning_rate=5e-3, rank=2, candidates=2)


def latent_of(family: str) -> torch.Tensor:
    return torch.zeros((1, 4, 16, 16) if family == UNET else shape_for(family, 1, (8, 8)))


def run(family, folder, model=None, observer=None, settings=SETTINGS):
    model = model or toy_model(family)
    adapter = tiny_adapter() if family == UNET else adapter_for(family)
    latent = {"samples": latent_of(family)}
    studio = HostStudio(model, adapter, cache(encode_for(family)), latent, 2, 2.0)
    return tune(studio, PROMPTS, settings, folder, observer or Observer())


def with_model(family, model, work) -> None:
    texts = HostTexts(encode_for(family), backbone_of(model.model))
    with_passes(model, texts, latent_of(family), work)


def denoised(family, model, lora=None) -> torch.Tensor:
    """Clean predictions, with a LoRA by hooks or as the model has it."""
    shape = (2, *latent_of(family).shape[1:])
    clean, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4))
    found = []

    def work(passes) -> None:
        asked = (clean, noise, torch.tensor([700, 400]), ["a", "bb"])
        studio = TrainedLora(passes, 2, 0)
        if lora is not None:
            studio.lora.load_state_dict(lora)
        with studio.hooked():
            found.append(studio.denoised(*asked, tuned=lora is not None)[0].detach())

    with_model(family, model, work)
    return found[0]


def stored(model) -> dict[str, tuple[int, bytes]]:
    """Address and bytes of every weight; the host makes new objects of those that it patched."""
    return {name: each[1:] for name, each in everything(model).items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_learns_and_loads(family, tmp_path):
    model = toy_model(family)
    before = stored(model)
    found, tuned = run(family, tmp_path, model)
    assert stored(model) == before
    assert not any(module._forward_hooks for module in model.model.modules())
    losses = [row["score weighted"] for row in found.rows]
    assert len(losses) == 8 and all(loss > 0 for loss in losses)
    assert any(value.abs().max() > 0 for key, value in found.lora.items() if "up" in key)
    learned = load_file(tmp_path / "lora.safetensors")
    for key, value in learned.items():  # what loads is at the strength that was best
        learned[key] = value * found.strength if "lora_up" in key else value
    hooked = denoised(family, model, learned)
    loaded = denoised(family, with_lora(model, tuned, 1.0))
    plain = denoised(family, model)
    assert distance(hooked, plain) > 1e-4
    torch.testing.assert_close(loaded, hooked, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_right(family):
    """The loss changes along the gradient as finite differences say."""
    model, found = toy_model(family), {}
    shape = (2, *latent_of(family).shape[1:])
    clean, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(6))

    def work(passes) -> None:
        studio = TrainedLora(passes, 2, 0)
        for one in studio.lora.values():
            torch.nn.init.normal_(one.lora_up.weight, std=0.05)
        trained = [p for p in studio.lora.parameters() if p.requires_grad]

        def loss() -> torch.Tensor:
            asked = (clean, noise, torch.tensor([700, 400]), ["a", "bb"])
            return studio.denoised(*asked, tuned=True)[0].double().square().mean()

        with studio.hooked():
            # What the last block says of the text is read by nobody.
            gradients = torch.autograd.grad(
                loss(), trained, allow_unused=True, materialize_grads=True
            )
            norm = torch.stack([each.square().sum() for each in gradients]).sum().sqrt()
            sides = []
            with torch.no_grad():
                for far in (1e-3, -1e-3):
                    for each, gradient in zip(trained, gradients, strict=True):
                        each.add_(gradient / norm, alpha=far)
                    sides.append(float(loss()))
                    for each, gradient in zip(trained, gradients, strict=True):
                        each.sub_(gradient / norm, alpha=far)
        found["ratio"] = (sides[0] - sides[1]) / 2e-3 / float(norm)

    with_model(family, model, work)
    assert found["ratio"] == pytest.approx(1.0, abs=2e-2)


def test_the_best_strength_stays(tmp_path):
    found, _ = run(UNET, tmp_path)
    told = json.loads((tmp_path / "development.json").read_text("utf-8"))
    figures = dict(zip(told["strengths"], told["after"], strict=True))
    assert list(figures) == list(STRENGTHS) and len(set(figures.values())) == len(STRENGTHS)
    assert found.after == max(figures.values()) == figures[found.strength]
    assert found.before == told["before"]
    learned = load_file(tmp_path / "lora.safetensors")
    for key, value in found.lora.items():
        path = key.removeprefix("diffusion_model.").rsplit(".lora_", 1)[0].replace(".", "/")
        side = "up" if "lora_up" in key else "down"
        strength = found.strength if side == "up" else 1.0
        torch.testing.assert_close(value, learned[f"{path}.lora_{side}.weight"] * strength)
    assert len(list((tmp_path / "development").iterdir())) == 1 + len(STRENGTHS)


def test_errors_that_weigh_nothing_are_not_read(tmp_path):
    run(UNET, tmp_path, settings=replace(SETTINGS, errors=0.0))
    found = load_file(next((tmp_path / "drawn").iterdir()))
    assert found["scores"].any() and not found["errors"].any()


@pytest.mark.parametrize("where", ["drew for 2", "step 3 ", "drawing with the LoRA at strength 2"])
def test_a_cancelled_run_goes_on(where, tmp_path):
    whole, _ = run(UNET, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(UNET, tmp_path / "parts", observer=StopAt(where))
    again, _ = run(UNET, tmp_path / "parts")
    first, second = ([row["score weighted"] for row in one.rows] for one in (whole, again))
    assert first == pytest.approx(second, rel=1e-6)
    assert whole.after == pytest.approx(again.after, rel=1e-5)


def test_attention_is_what_is_tuned():
    layers = projections(backbone_of(tiny_model(UNET).model))
    assert layers and all("attn" in path for path in layers)


def test_the_node(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    node = type("Node", (TuneLoRA,), {"hidden": SimpleNamespace(unique_id="1")})
    inputs = {
        "prompts": "a\n\nb\nc\n", "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
        "candidates": 2, "sampling_steps": 2, "cfg": 2.0, "steps": 2, "batch_size": 2,
        "learning_rate": 1e-3, "rank": 2, "seed": 0, "run_name": "mine",
    }  # fmt: skip
    tuned, losses, report = node.execute(
        tiny_model(UNET), tiny_clip(), tiny_vae(), tiny_adapter(), **inputs
    ).result
    assert tuned.checkpoint.lora and len(losses["loss"]) == 2 and report.ndim == 4
    with pytest.raises(ValueError, match="at least 2 different prompts"):
        node.execute(tiny_model(UNET), tiny_clip(), tiny_vae(), tiny_adapter(),
                     **{**inputs, "prompts": "one", "run_name": "other"})  # fmt: skip


@pytest.mark.parametrize("architecture", [UNET_DEMO, DIT])
def test_pictures_are_read_as_in_diffusers(architecture, tmp_path):
    """Scores and errors of the same pictures, with the weights that ship."""
    folder = demo_folder(tmp_path, architecture)
    demo = load_demo(folder, architecture)
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    prompt, encode = "a red circle left of a blue square", partial(encode_prompt, demo.clip)
    raw = demo.model.model.process_latent_out(latents)
    studio = HostStudio(demo.model, demo.adapter, encode, {"samples": raw[:1]}, 2, 2.0)
    errors, scores = studio.errors(raw, prompt), studio.scores(raw, prompt)
    with torch.inference_mode(False):
        there = load_for_diffusers(folder, architecture)
        asked, reader = [RewardPrompt(prompt)] * 3, there.checkpoint.adapter
        theirs = reward_scores(there.pipeline, reader, latents, asked, LEVELS, 0)
        hard = reward_errors(there.pipeline, latents, asked, 0)
    torch.testing.assert_close(errors, hard, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(scores, theirs, rtol=0, atol=2e-3)
