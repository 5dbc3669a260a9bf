"""The published sampling loop on a diffusers UNet, and the same inside a whole pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler

from dpt_core import PRESETS, AdapterConfig, Correction, load_checkpoint
from dpt_core.backbones.base import BackboneCall
from dpt_core.backbones.checks import check_taps
from dpt_core.backbones.stable_diffusion import StableDiffusion
from dpt_core.correction import score_gradient
from dpt_core.diffusers import score_function, self_correcting
from dpt_core.lora import merge_lora

RUNS = {"eta0": 0.0, "eta0.5": 0.5, "eta_strong": 200.0, "eta0.5_lora": 0.5}
"""Recorded runs and their strength."""


def around(unet, scheduler=None) -> SimpleNamespace:
    """A UNet with a scheduler of ten steps, as self-correction wants it."""
    if scheduler is None:
        scheduler = DDIMScheduler(timestep_spacing="trailing")
        scheduler.set_timesteps(10)
    return SimpleNamespace(unet=unet, scheduler=scheduler)


def published(strength: float, **settings) -> Correction:
    return replace(PRESETS["published"], strength=strength, **settings)


def score_at(unet, adapter, timestep, context, text):
    call = BackboneCall(None, timestep, {"encoder_hidden_states": context})
    return score_function(StableDiffusion(around(unet)), adapter, call, text)


@pytest.mark.parametrize(
    "stack, name",
    [("sd21", name) for name in RUNS] + [("sd1x", "eta0.5"), ("sd1x", "eta0.5_lora")],
    indirect=["stack"],
)
def test_trajectory(stack, golden, name):
    recorded = stack.load_run(name)
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    if name.endswith("lora"):
        merge_lora(unet, checkpoint.lora)
    scheduler = DDIMScheduler.from_config(
        json.loads((golden / "scheduler_config.json").read_text())
    )
    scheduler.set_timesteps(len(recorded["timesteps"]))
    context = torch.cat([stack.text["uncond"], stack.text["cond"]])
    strength = RUNS[name]
    z = recorded["latents"][0]
    pipeline, text = around(unet, scheduler), stack.text["pooled_cond"]
    with self_correcting(pipeline, checkpoint.adapter, text, published(strength)) as run:
        for step, timestep in enumerate(recorded["timesteps"][:-1]):
            with torch.no_grad():
                unconditional, conditional = unet(z.repeat(2, 1, 1, 1), timestep, context)[0].chunk(
                    2
                )
            noise = unconditional + 7.5 * (conditional - unconditional)
            z = scheduler.step(noise, int(timestep), z).prev_sample
            expected = recorded["latents"][step + 1]
            assert (z - expected).norm() / expected.norm() <= 1e-4, step
    if strength:
        torch.testing.assert_close(
            torch.stack(run.scores), recorded["s"][: len(run.scores)], atol=1e-4, rtol=0
        )
    assert len(run.scores) == (len(recorded["timesteps"]) - 1 if strength else 0)


def test_range_and_every_nth_step(stack):
    """Steps of the sampler, however often it calls the UNet in each."""
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    z, text = torch.randn(2, 4, 16, 16), stack.text["pooled_cond"][:1]
    settings = published(100.0, start_percent=0.2, end_percent=0.7, every_n_steps=2)
    pipeline = around(unet)
    steps = [t for t in pipeline.scheduler.timesteps.tolist() for _ in range(2)]
    plain = [unet(z, t, stack.text["cond"]).sample for t in steps]
    with self_correcting(pipeline, checkpoint.adapter, text, settings, guided=False) as run:
        moved = [unet(z, t, stack.text["cond"]).sample for t in steps]
    assert steps[::2] == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert run.corrected == {2, 4, 6}
    changed = [not torch.equal(one, other) for one, other in zip(plain, moved, strict=True)]
    assert changed == [t in (799, 599, 399) for t in steps]
    assert torch.equal(unet(z, 799, stack.text["cond"]).sample, plain[4])


def test_lagged_moves_by_the_last_gradients(stack):
    """From the second move on, half-way from the last one to what its gradient asks for."""
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    adapter, text = checkpoint.adapter, stack.text["pooled_cond"][:1]
    context = torch.cat([stack.text["uncond"][:1], stack.text["cond"][:1]])
    z, move, expected, scores = torch.randn(2, 4, 16, 16), None, [], []
    for timestep in (999, 899, 799):
        moved = z if move is None else torch.cat([z[:1], z[1:] + move])
        with torch.no_grad():
            expected.append(unet(moved, timestep, context).sample)
        score = score_at(unet, adapter, timestep, context[1:], text)
        score, gradient = score_gradient(moved[1:], score)
        scores.append(score)
        move = 50.0 * gradient if move is None else (move + 50.0 * gradient) / 2
    with (
        torch.no_grad(),
        self_correcting(around(unet), adapter, text, published(50.0, mode="lagged")) as run,
    ):
        for timestep, output in zip((999, 899, 799), expected, strict=True):
            torch.testing.assert_close(unet(z, timestep, context, return_dict=False)[0], output)
    assert not torch.allclose(expected[2], unet(z, 799, context).sample)
    torch.testing.assert_close(run.scores, scores)
    assert run.levels == [999.0, 899.0, 799.0]


@pytest.mark.parametrize("mode", ["lagged", "guidance"])
def test_nothing_is_kept_for_the_way_back_beyond_the_tap(stack, mode):
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    z, recording = torch.randn(2, 4, 16, 16), []
    context = torch.cat([stack.text["uncond"][:1], stack.text["cond"][:1]])
    settings = published(50.0, mode=mode)
    for part in (unet.conv_in, unet.conv_out):
        part.register_forward_hook(lambda *_: recording.append(torch.is_grad_enabled()))
    text = stack.text["pooled_cond"][:1]
    with torch.no_grad(), self_correcting(around(unet), checkpoint.adapter, text, settings):
        unet(z, 999, context)
        assert not torch.is_grad_enabled()
    assert recording == [True, False, False, False]  # the conditional pass, then the other


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_guidance_moves_the_predicted_picture(stack, kind):
    """By `(1 − ᾱ)/√ᾱ η ∂s/∂z`, whatever the UNet predicts; only the conditional row."""
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    adapter, text = checkpoint.adapter, stack.text["pooled_cond"][:1]
    context = torch.cat([stack.text["uncond"][:1], stack.text["cond"][:1]])
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    z, timestep = torch.randn(2, 4, 16, 16), int(scheduler.timesteps[4])
    alpha = scheduler.alphas_cumprod[timestep]
    score = score_at(unet, adapter, timestep, context[1:], text)
    scores, gradient = score_gradient(z[1:], score)

    def picture() -> torch.Tensor:
        output = unet(z, timestep, context).sample
        return scheduler.step(output, timestep, z).pred_original_sample

    with torch.no_grad():
        plain = picture()
        settings = published(50.0, step="annealed", mode="guidance")
        with self_correcting(around(unet, scheduler), adapter, text, settings) as run:
            moved = picture()
    torch.testing.assert_close(moved[:1], plain[:1], atol=1e-4, rtol=1e-4)
    expected = 50.0 * (1 - alpha) / alpha.sqrt() * gradient
    torch.testing.assert_close(moved[1:] - plain[1:], expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(run.scores[0], scores)


def test_what_cannot_be(stack):
    for settings, told in (
        ({"mode": "lagged", "inner_steps": 2}, "exact"),
        ({"mode": "guidance", "inner_steps": 2}, "exact"),
        ({"mode": "x"}, "lagged"),
        ({"step": "x"}, "annealed"),
    ):
        with pytest.raises(ValueError, match=told):
            replace(PRESETS["published"], **settings)
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    text, pipeline = stack.text["pooled_cond"], around(unet, EDMEulerScheduler())
    with pytest.raises(ValueError, match="got EDMEulerScheduler"):
        with self_correcting(pipeline, checkpoint.adapter, text):
            pass


def test_a_run_ends_with_its_timesteps(stack):
    """Two runs in one context are alike; a run that begins part-way moves at once."""
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    pipeline, text = around(unet), stack.text["pooled_cond"][:1]
    context, z = stack.text["cond"][:1], torch.randn(1, 4, 16, 16)
    settings = published(50.0, mode="lagged")

    def run() -> list[torch.Tensor]:
        pipeline.scheduler.set_timesteps(10)
        return [unet(z, t, context).sample for t in pipeline.scheduler.timesteps[:3]]

    plain = run()
    with torch.no_grad(), self_correcting(
        pipeline, checkpoint.adapter, text, settings, guided=False
    ):  # fmt: skip
        first, second = run(), run()
        pipeline.scheduler.set_timesteps(10)
        late = unet(z, pipeline.scheduler.timesteps[4], context).sample
    assert all(map(torch.equal, first, second))
    assert torch.equal(first[0], plain[0])
    assert not torch.allclose(first[1], plain[1])
    assert not torch.allclose(late, unet(z, pipeline.scheduler.timesteps[4], context).sample)


def test_score_function(stack):
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    recorded = stack.load("cases")
    score = score_at(
        unet,
        checkpoint.adapter,
        recorded["case0.timestep"],
        stack.text["cond"],
        stack.text["pooled_cond"],
    )
    torch.testing.assert_close(score(recorded["case0.latent"]), recorded["case0.s"])


def test_another_family(stack):
    config = AdapterConfig(in_channels=8, text_width=64)
    width = stack.unet_config["block_out_channels"][-2]
    with pytest.raises(ValueError, match=f"expects 8 channels at tap up1, the model has {width}"):
        check_taps(StableDiffusion(around(stack.unet())).taps(), config.tap, config.in_channels)
