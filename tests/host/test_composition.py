"""Correction together with everything else that people wire."""

from __future__ import annotations

from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_custom_sampler
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from dpt_pack.dpt_core.correction import MODES, PRESETS
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.lora import with_lora
from runs import STRENGTH, call, corrected, distance, latents, sample
from tiny_models import FAMILIES, tiny_adapter, tiny_model, tiny_text, with_control

from nodes import ConditioningCombine, ConditioningSetArea, ConditioningSetMask


@pytest.fixture
def model():
    return tiny_model("sd15")


@pytest.fixture
def adapter():
    return tiny_adapter()


def check(model, adapter, at_least: float = 1e-3, **run) -> torch.Tensor:
    """The run finishes, is corrected, and differs from the plain one."""
    moved, scores = corrected(model, adapter)
    result = sample(moved, **run)
    assert result.isfinite().all()
    assert scores
    assert distance(result, sample(model, **run)) > at_least
    return result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_families(family, mode, adapter):
    model = tiny_model(family)
    moved, scores = corrected(model, adapter, mode=mode)
    result = sample(moved)
    assert result.isfinite().all()
    assert len(scores) == 4 - (mode == "lagged")  # its last gradient would move nothing
    assert distance(result, sample(model)) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_equals_single_runs(mode, model, adapter):
    start = latents(4, seed=11)
    strength = 1.0 if mode == "guidance" else STRENGTH  # a prediction goes further than a latent
    together = sample(corrected(model, adapter, strength, mode=mode)[0], latent=start, denoise=0.99)
    noise = comfy.sample.prepare_noise(start["samples"], 7)
    for row in range(4):
        moved, _ = corrected(model, adapter, strength, mode=mode)
        guider = comfy.samplers.CFGGuider(moved)
        guider.set_conds(tiny_text(1), tiny_text(2))
        guider.set_cfg(7.5)
        sampler = comfy.samplers.KSampler(
            moved, 4, model.load_device, "euler", "normal", 0.99, model.model_options
        )
        alone = guider.sample(
            noise[row : row + 1],
            start["samples"][row : row + 1],
            comfy.samplers.sampler_object("euler"),
            sampler.sigmas,
            disable_pbar=True,
        )
        assert distance(together[row : row + 1], alone) <= 1e-4


def test_control_net(model, adapter):
    controlled = with_control(tiny_text(1))
    result = check(model, adapter, positive=controlled)
    assert distance(result, sample(corrected(model, adapter)[0])) > 1e-3


def test_area_prompts_follow_their_own_texts(model, adapter):
    area = ConditioningSetArea()
    (left,) = area.append(tiny_text(1), 64, 128, 0, 0, 1.0)
    (right,) = area.append(tiny_text(3), 64, 128, 64, 0, 1.0)
    (both,) = ConditioningCombine().combine(left, right)
    check(model, adapter, positive=both)
    (third,) = area.append(tiny_text(4), 64, 128, 64, 0, 1.0)
    (other,) = ConditioningCombine().combine(left, third)
    results = []
    for positive in (both, other):
        for entry in positive:  # the texts act through the correction alone
            entry[0] = both[0][0]
        results.append(sample(corrected(model, adapter)[0], positive=positive, steps=1))
    assert distance(*results) > 1e-5
    assert torch.equal(results[0][..., :8], results[1][..., :8])


def test_masked_prompts(model, adapter):
    mask = torch.zeros(1, 128, 128)
    mask[..., :64] = 1
    (left,) = ConditioningSetMask().append(tiny_text(1), mask, "default", 1.0)
    (right,) = ConditioningSetMask().append(tiny_text(3), 1 - mask, "mask bounds", 1.0)
    check(model, adapter, positive=ConditioningCombine().combine(left, right)[0])


@pytest.mark.parametrize("mode", MODES)
def test_inpainting_leaves_the_rest_alone(mode, model, adapter):
    latent = latents(seed=5)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    latent["noise_mask"] = mask
    plain = sample(model, latent=latent)
    inputs: list[torch.Tensor] = []
    moved, scores = corrected(model, adapter, mode=mode)

    def spy(run, x, *args, **kwargs):
        inputs.append(x)
        return run(x, *args, **kwargs)

    moved.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", spy)
    result = sample(moved, latent=latent)
    assert scores
    assert torch.equal(result[..., :8], plain[..., :8])
    assert distance(result[..., 8:], plain[..., 8:]) > 1e-3
    whole = [x for x in inputs if len(x) == 2]  # a conditional and an unconditional row
    for x in whole:
        assert torch.equal(x[0, ..., :8], x[1, ..., :8])
    if mode == "exact":
        assert whole and all(not torch.equal(*x) for x in whole)


def test_image_to_image(model, adapter):
    check(model, adapter, latent=latents(seed=5), denoise=0.5)


def test_without_guidance(model, adapter):
    check(model, adapter, cfg=1.0)


def test_a_second_lora(model):
    adapter = tiny_adapter(lora_for=model)
    other = tiny_adapter(1, lora_for=model)
    both = with_lora(with_lora(model, other, 0.5), adapter, 1.0)
    result = check(both, adapter)
    for fewer in (with_lora(model, adapter, 1.0), with_lora(model, other, 0.5)):
        assert distance(result, sample(corrected(fewer, adapter)[0])) > 1e-3


def test_freeu(model, adapter):
    patched = call(FreeU_V2, model=model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    check(patched, adapter)


@pytest.mark.parametrize("mode", MODES)
def test_perturbed_attention_moves_once_a_step(mode, model, adapter):
    """It denoises the same latent twice a step: both passes must see the same move."""
    moved, scores = corrected(model, adapter, mode=mode)
    perturbed = call(PerturbedAttentionGuidance, model=moved, scale=3.0)
    assert sample(perturbed).isfinite().all()
    assert len(scores) == 4 - (mode == "lagged")  # its last gradient would move nothing


@pytest.mark.parametrize("guider", ["CFGGuider", "DualCFGGuider", "BasicGuider"])
def test_sampler_custom_advanced(guider, model, adapter):
    positive, negative = tiny_text(1), tiny_text(2)
    arguments = {
        "CFGGuider": {"positive": positive, "negative": negative, "cfg": 7.5},
        "DualCFGGuider": {
            "cond1": positive,
            "cond2": tiny_text(3),
            "negative": negative,
            "cfg_conds": 3.0,
            "cfg_cond2_negative": 4.0,
            "style": "regular",
        },
        "BasicGuider": {"conditioning": positive},
    }[guider]
    results = []
    moved, scores = corrected(model, adapter)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", 4)
    for candidate in (model, moved):
        guided = call(getattr(nodes_custom_sampler, guider), model=candidate, **arguments)
        output = call(
            SamplerCustomAdvanced,
            noise=Noise_RandomNoise(3),
            guider=guided,
            sampler=comfy.samplers.sampler_object("dpmpp_2m"),
            sigmas=sigmas,
            latent_image=latents(),
        )
        results.append(output["samples"])
    assert scores
    assert distance(results[1], results[0]) > 1e-3


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler(name, model, adapter):
    moved, scores = corrected(model, adapter)
    assert sample(moved, sampler=name, steps=3).isfinite().all()
    assert scores


@pytest.mark.parametrize("name", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler(name, model, adapter):
    moved, scores = corrected(model, adapter)
    assert sample(moved, scheduler=name, steps=3).isfinite().all()
    assert scores


def test_range_and_every_nth_step(model, adapter):
    steps = []
    correction = replace(
        PRESETS["published"], strength=1.0, start_percent=0.2, end_percent=0.7, every_n_steps=2
    )
    moved = with_self_correction(model, adapter, correction, lambda *call: steps.append(call[0]))
    sample(moved, steps=10)
    assert steps == [2, 4, 6]


def test_lagged_follows_exact(model, adapter):
    """With many steps, the previous step's gradient is nearly the present one."""
    plain = sample(model, steps=30)
    exact, lagged = (
        sample(corrected(model, adapter, 100.0, mode=mode)[0], steps=30)
        for mode in ("exact", "lagged")
    )
    moves = (exact - plain).flatten(), (lagged - plain).flatten()
    assert torch.nn.functional.cosine_similarity(*moves, dim=0) > 0.9
