"""What a correction remembers, and for how long; what it says where there is nothing to do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from chains import plain_model
from comfy_extras import nodes_model_advanced
from dpt_pack.dpt_core.correction import MODES, PRESETS
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.grounding import find_boxes
from dpt_pack.nodes.host.measure import measure
from dpt_pack.nodes.ksampler import KSampler
from dpt_pack.nodes.self_correction import SelfCorrection
from runs import STRENGTH, call, corrected, distance, latents, sample
from tiny_models import tiny_adapter, tiny_model, tiny_text, tiny_vae

from nodes import KSamplerAdvanced


@pytest.fixture(scope="module")
def adapter():
    return tiny_adapter()


def staged(*stages: tuple) -> torch.Tensor:
    """KSamplerAdvanced in stages of 8 steps, each with what noise the one before it left.

    Args:
        stages: per stage its model and the step at which it ends.
    """
    latent, start = latents(2), 0
    for model, end in stages:
        noise, left = ("disable", "enable")[start == 0], ("enable", "disable")[end == 8]
        (latent,) = KSamplerAdvanced().sample(
            *(model, noise, 7, 8, 7.5, "euler", "normal", tiny_text(1), tiny_text(2)),
            *(latent, start, end, left),
        )
        start = end
    return latent["samples"]


@pytest.mark.parametrize("mode", MODES)
def test_a_second_stage_goes_on_where_the_first_ended(mode, adapter):
    """Every third step is every third of the sampler's, not of the stage's."""
    strength = 1.0 if mode == "guidance" else STRENGTH
    model, scores = corrected(plain_model(), adapter, strength, mode=mode, every_n_steps=3)
    once = staged((model, 8))
    assert distance(once, staged((plain_model(), 8))) > 1e-3
    assert len(scores) == 3
    apart = staged((model, 4), (model, 8))
    assert len(scores) == 6
    if mode != "lagged":  # which starts the second stage with its own gradient
        assert distance(apart, once) <= 1e-4


def test_a_second_stage_starts_with_a_move(adapter):
    """Also in mode lagged, whose first step of a run from noise has none."""
    plain = plain_model()
    model, _ = corrected(plain, adapter, mode="lagged")
    stages = staged((plain, 1), (model, 2), (plain, 8))
    assert distance(stages, staged((plain, 8))) > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_equal_runs_are_equal(mode, adapter):
    model, _ = corrected(plain_model(), adapter, mode=mode)
    assert torch.equal(sample(model), sample(model))


def test_no_strength_takes_an_earlier_correction_off(adapter):
    moved, _ = corrected(plain_model(), adapter)
    off = with_self_correction(moved, adapter, replace(PRESETS["balanced"], strength=0.0))
    assert torch.equal(sample(off), sample(plain_model()))
    assert torch.equal(sample(with_self_correction(moved, None, PRESETS["balanced"])), sample(off))
    assert distance(sample(moved), sample(off)) > 1e-3


def test_a_self_correcting_model_is_scored_and_grounded_as_the_plain_one(adapter):
    model, vae = plain_model(), tiny_vae()
    latent = latents(2, seed=3)["samples"]
    images = torch.rand(1, 64, 72, 3, generator=torch.Generator().manual_seed(2))
    for mode in MODES:
        moved, scores = corrected(model, adapter, mode=mode)
        plain, found = (
            measure(each, adapter, latent, tiny_text(1), 500, 2, 5) for each in (model, moved)
        )
        assert torch.equal(found, plain)
        (plain,), (found,) = (
            find_boxes(each, adapter, vae, images, tiny_text(1), 500, 0) for each in (model, moved)
        )
        assert torch.equal(found.boxes, plain.boxes)
        assert not scores


@pytest.mark.parametrize("node", [SelfCorrection, KSampler])
def test_a_second_pass_says_on_the_node_that_nothing_is_corrected(node, adapter, told):
    """At a low denoise there is little noise left: balanced ends before it."""
    node = type("Node", (node,), {"hidden": SimpleNamespace(unique_id="1")})
    latent = latents(seed=5)
    if issubclass(node, KSampler):
        texts = tiny_text(1), tiny_text(2)
        node.execute(
            *(plain_model(), 7, 4, 7.5, "euler", "normal", *texts, latent, 0.3, "balanced", adapter)
        )
    else:
        (moved,) = node.execute(plain_model(), adapter, "balanced").result
        assert torch.equal(
            sample(moved, latent=latent, denoise=0.3),
            sample(plain_model(), latent=latent, denoise=0.3),
        )
    assert any("nothing corrected" in line and "denoise" in line for line in told)


def test_a_pass_that_corrects_says_its_scores(adapter, told):
    node = type("Node", (SelfCorrection,), {"hidden": SimpleNamespace(unique_id="1")})
    (moved,) = node.execute(plain_model(), adapter, "balanced").result
    sample(moved)
    assert any("score" in line for line in told)
    assert not any("nothing corrected" in line for line in told)


def test_guidance_stays_bounded_where_no_signal_is_left(adapter):
    """Zero terminal signal-to-noise: the prediction would move by a multiple of 1 / √ᾱ."""
    sizes = []
    for zero in (False, True):
        model = call(
            nodes_model_advanced.ModelSamplingDiscrete,
            model=tiny_model("sd21v"),
            sampling="v_prediction",
            zsnr=zero,
        )
        moved, scores = corrected(model, adapter, 1.0, mode="guidance")
        plain, found = (sample(each, steps=1, cfg=1.0) for each in (model, moved))
        assert scores and found.isfinite().all()
        sizes.append(float((found - plain).norm()))
    assert sizes[1] <= 3 * sizes[0]
