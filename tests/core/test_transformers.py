"""Transformers in diffusers: narrow random pipelines of every family, through everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_pipelines import SIZE, TAPS, adapter_for, every_pipeline, pipeline_of, scheduler_of

from dpt_core.backbones.autoencoders import decode
from dpt_core.backbones.base import BackboneCall, read_features, replaced
from dpt_core.backbones.checks import check_adapter
from dpt_core.backbones.registry import backbone_of
from dpt_core.correction import MODES, PRESETS, Correction, score_gradient
from dpt_core.diffusers import score_function, self_correcting, text_vectors
from dpt_core.generation import Sampling, generate, generate_latents
from dpt_core.reading import alignment_scores, encode_pictures, noised, read_boxes
from dpt_core.search import Search

PROMPTS = ["a red cube", "a blue sphere on the left of a green cone", ""]
SEEDS = [1, 2, 3]
STRONG = Correction(strength=40.0, end_percent=1.0)
LATENTS = tuple(side // 8 for side in SIZE)


@pytest.fixture(scope="module", params=TAPS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipeline(family):
    return pipeline_of(family)


@pytest.fixture
def adapter(family, pipeline):
    return adapter_for(family, pipeline)


def sampling(guidance: float = 4.0, steps: int = 3, correction: Correction | None = None):
    return Sampling(steps, guidance, correction, SIZE)


def latents_of(pipeline, adapter, correction=None, guidance=4.0, rows=slice(None)):
    drawn = sampling(guidance, correction=correction)
    return generate_latents(pipeline, PROMPTS[rows], SEEDS[rows], drawn, adapter)


def call_of(backbone, level: int = 700, prompts=PROMPTS) -> BackboneCall:
    generator = torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, len(prompts), 16, *LATENTS, generator=generator)
    return noised(backbone, latents, noise, level, backbone.conditioning(prompts, LATENTS))


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance."""
    return float((one - other).norm() / other.norm())


def test_gradients_agree_with_differences(family, pipeline):
    """At every tap, of prompts of different lengths, 3 × 5 tokens."""
    backbone = backbone_of(pipeline)
    call, generator = call_of(backbone), torch.Generator().manual_seed(1)
    for tap in backbone.taps():
        adapter = adapter_for(family, pipeline, tap)
        text = backbone.text_vectors(PROMPTS, backbone.texts[0])
        score = score_function(backbone, adapter, call, text)
        _, gradient = score_gradient(call.x, score)
        some = torch.rand(gradient.shape, generator=generator) < 0.5
        for way in (gradient, gradient * some):
            way = way / way.norm()

            def slope(step: float, way=way, score=score) -> float:
                with torch.no_grad():
                    high, low = score(call.x + step * way), score(call.x - step * way)
                return float((high.double() - low.double()).sum()) / (2 * step)

            found = slope(0.004)  # small: the adapter's ReLUs have kinks
            wanted = float((gradient * way).sum())
            assert found == pytest.approx(wanted, rel=1e-3), tap


def test_calls_are_read_and_made_again_exactly(pipeline):
    """What a pipeline calls its network with, and what it gets back."""
    backbone, seen = backbone_of(pipeline), 0
    plain = backbone.module.forward

    def forward(*args, **kwargs):
        nonlocal seen
        wanted = plain(*args, **kwargs)
        call = backbone.call(args, kwargs)
        assert call.sigmas()[0] in pipeline.scheduler.timesteps
        again = backbone.result(call, backbone.run(plain, call))
        assert type(again) is type(wanted)
        for one, other in zip(again[0], wanted[0], strict=True):
            assert torch.equal(one, other)
        seen += 1
        return wanted

    with replaced(backbone.module, "forward", forward):
        generate(pipeline, PROMPTS, SEEDS, sampling())
    assert seen in (3, 6)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_its_pictures(pipeline, adapter, mode):
    """With prompts of different lengths; corrected, and not by little."""
    correction = replace(STRONG, mode=mode)
    plain = latents_of(pipeline, adapter)
    together = latents_of(pipeline, adapter, correction)
    assert far(together, plain) > 1e-3
    for row in range(len(PROMPTS)):
        alone = latents_of(pipeline, adapter, correction, rows=slice(row, row + 1))
        assert far(alone[0], together[row]) < 1e-3


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_corrections_too_small_to_see(pipeline, adapter, guidance):
    plain = latents_of(pipeline, adapter, guidance=guidance)
    for mode in MODES:
        tiny = replace(STRONG, strength=1e-4, mode=mode)
        text = text_vectors(pipeline, PROMPTS, adapter.config.text)
        with self_correcting(pipeline, adapter, text, tiny) as run:
            moved = latents_of(pipeline, adapter, guidance=guidance)
        assert run.corrected == {0, 1, 2}
        assert far(moved, plain) < 1e-4
    off = replace(STRONG, strength=0.0)
    assert torch.equal(latents_of(pipeline, adapter, off, guidance), plain)


def test_nothing_is_left(pipeline, adapter):
    module, scheduler = pipeline.transformer, pipeline.scheduler
    generate(pipeline, PROMPTS, SEEDS, sampling())  # diffusers leaves marks of its own
    before = set(vars(module)), set(vars(scheduler))
    hooks = [len(part._forward_hooks) for part in module.modules()]
    wrong = torch.randn(1, 99)
    with pytest.raises(ValueError, match="99"), self_correcting(pipeline, adapter, wrong, STRONG):
        generate(pipeline, PROMPTS, SEEDS, sampling())
    generate(pipeline, PROMPTS, SEEDS, sampling(correction=STRONG), adapter, Search(2))
    assert set(vars(module)) == before[0]
    assert set(vars(scheduler)) == before[1]
    assert [len(part._forward_hooks) for part in module.modules()] == hooks


def test_only_conditional_rows_move(pipeline, adapter):
    """A negative prompt's prediction stays what it is."""
    backbone, found = backbone_of(pipeline), []
    plain = backbone.module.forward

    def forward(*args, **kwargs):
        call = backbone.call(args, kwargs)
        found.append((call.x.shape[0], call.x.clone(), not torch.is_grad_enabled()))
        return plain(*args, **kwargs)

    text = text_vectors(pipeline, PROMPTS[:1], adapter.config.text)
    exact = replace(STRONG, strength=3000.0, mode="exact")
    with replaced(backbone.module, "forward", forward):
        with self_correcting(pipeline, adapter, text, exact):
            generate(pipeline, PROMPTS[:1], SEEDS[:1], sampling(steps=1))
    guided = [x for _, x, free in found if free]
    rows = torch.cat(guided)
    if backbone.family == "flux":  # told its guidance: one row
        assert len(rows) == 1
        return
    assert len(rows) == 2 and far(rows[0], rows[1]) > 1e-3


def test_recomputed_gradients_are_the_same(family, adapter):
    pipeline = pipeline_of(family)
    backbone = backbone_of(pipeline)
    call = call_of(backbone)
    text = backbone.text_vectors(PROMPTS, adapter.config.text)
    score = score_function(backbone, adapter, call, text)
    wanted = score_gradient(call.x, score)
    pipeline.transformer.enable_gradient_checkpointing()
    found = score_gradient(call.x, score)
    assert far(found[1], wanted[1]) < 1e-5 and torch.allclose(found[0], wanted[0])
    assert pipeline.transformer.gradient_checkpointing


def test_scores_of_pictures(pipeline, adapter):
    """Of any size, one by one or together; boxes too."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (3, 50, 77, 3), np.uint8)
    together = alignment_scores(pipeline, adapter, pictures, PROMPTS, draws=2)
    assert together.isfinite().all() and len(set(together.tolist())) == 3
    alone = alignment_scores(pipeline, adapter, pictures[1:2], PROMPTS[1:2], draws=2)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=0)
    latents = encode_pictures(pipeline, pictures)
    assert latents.shape == (3, 16, *LATENTS)
    noise = torch.randn(1, *latents.shape)
    ((boxes, confidence),) = read_boxes(pipeline, adapter, latents, PROMPTS, [300], noise)
    assert boxes.shape == (3, 4, 4) and confidence.shape == (3, 4)


def test_latents_are_the_pipelines_own(pipeline):
    """Unpacked and scaled as it decodes them."""
    latents = generate_latents(pipeline, PROMPTS, SEEDS, sampling())
    drawn = generate(pipeline, PROMPTS, SEEDS, sampling()).pictures
    with torch.no_grad():
        pixels = (decode(pipeline.vae, latents) / 2 + 0.5).clamp(0, 1)
    found = (pixels.movedim(1, -1).numpy() * 255).round()
    assert np.abs(found - drawn).max() <= 1


@pytest.mark.parametrize(("correction", "guidance"), [(None, 4.0), (STRONG, 4.0), (STRONG, 1.0)])
def test_search_finds_the_picture_of_its_seed(pipeline, adapter, correction, guidance):
    drawn = sampling(guidance, 4, correction)
    found = generate(pipeline, PROMPTS[:2], [10, 20], drawn, adapter, Search(3, 0.5, stages=2))
    alone = generate(pipeline, PROMPTS[:2], found.seeds, drawn, adapter)
    error = np.square(found.pictures.astype(float) - alone.pictures).mean()
    assert 10 * np.log10(255**2 / max(error, 1e-9)) >= 50
    assert found.candidates.shape == (3, 2)
    assert all(10 * (n + 1) <= seed < 10 * (n + 1) + 3 for n, seed in enumerate(found.seeds))


@pytest.mark.parametrize("preset", ["balanced", "fast"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_presets_correct_distilled_models(pipeline, adapter, preset, steps):
    """Without guidance, in few steps: the first ones are corrected, and something moves."""
    plain = generate(pipeline, PROMPTS, SEEDS, sampling(1.0, steps))
    drawn = sampling(1.0, steps, PRESETS[preset])
    text = text_vectors(pipeline, PROMPTS, adapter.config.text)
    with self_correcting(pipeline, adapter, text, PRESETS[preset]) as run:
        moved = generate(pipeline, PROMPTS, SEEDS, replace(drawn, correction=None))
    share = PRESETS[preset].end_percent
    assert run.corrected == set(range(int(share * steps) + 1))
    assert not np.array_equal(moved.pictures, plain.pictures)


def test_adapters_of_others_are_refused(family, pipeline):
    other = "flux" if family != "flux" else "sd3"
    for changed, told in (
        ({"family": other}, f"family {other}, the model is of family {family}"),
        ({"tap": "block9"}, "the model has block0"),
        ({"text": "eos_hidden"}, f"encoders of {family} give"),
    ):
        config = replace(adapter_for(family, pipeline).config, **changed)
        with pytest.raises(ValueError, match=told):
            check_adapter(backbone_of(pipeline), config)


def test_schedulers_of_other_noise_are_refused(pipeline, adapter):
    from diffusers import DDIMScheduler

    text = torch.randn(1, adapter.config.text_width)
    with replaced(pipeline, "scheduler", DDIMScheduler()):
        with pytest.raises(ValueError, match="use a scheduler for flow matching .* DDIMScheduler"):
            with self_correcting(pipeline, adapter, text):
                pass


def test_networks_of_no_family_are_refused():
    from types import SimpleNamespace

    from diffusers import AutoencoderKL

    pipeline = SimpleNamespace(transformer=AutoencoderKL(block_out_channels=[32]), scheduler=None)
    with pytest.raises(ValueError, match="found AutoencoderKL, expected UNet2DConditionModel, SD3"):
        backbone_of(pipeline)


@every_pipeline
def test_half_precision_knows_its_step(family):
    """A timestep that the network's precision rounds is still the scheduler's own."""
    pipeline = pipeline_of(family).to(torch.bfloat16)
    backbone, found = backbone_of(pipeline), []
    plain = backbone.module.forward

    def forward(*args, **kwargs):
        found.append(float(backbone.call(args, kwargs).sigmas()[0]))
        return plain(*args, **kwargs)

    with replaced(backbone.module, "forward", forward):
        pipeline(
            PROMPTS[:1], num_inference_steps=30, output_type="latent", height=32, width=32,
            **backbone.arguments(PROMPTS[:1], 1.0),
        )  # fmt: skip
    assert found == pipeline.scheduler.timesteps.tolist()


def test_features_are_the_pictures_own_tokens(pipeline):
    """A cell that changes in the latent changes its own features most."""
    backbone = backbone_of(pipeline)
    call = call_of(backbone, prompts=PROMPTS[:1])
    moved = torch.zeros(1, 16, *LATENTS)
    moved[..., 2:4, 6:8] = 1.0
    with torch.no_grad():
        before, _ = read_features(backbone, "block0", call)
        after, _ = read_features(
            backbone, "block0", call.at(call.x + backbone.packed(moved), call.sigmas())
        )
    change = (after - before).square().sum(1)[0]
    assert divmod(int(change.argmax()), change.shape[1]) == (1, 3)


def test_another_schedule(pipeline, adapter):
    """The range is of the steps, whatever shift they have."""
    text = torch.randn(1, adapter.config.text_width)
    wanted = replace(STRONG, start_percent=0.25, end_percent=0.5)
    with replaced(pipeline, "scheduler", scheduler_of(shift=9.0)):
        with self_correcting(pipeline, adapter, text, wanted) as run:
            generate(pipeline, PROMPTS, SEEDS, sampling(steps=8))
    assert run.corrected == {2, 3, 4}


def test_weights_that_come_and_go_are_refused(family, adapter):
    """A gradient through them could be wrong without an error."""
    pipeline = pipeline_of(family)
    text = torch.randn(1, adapter.config.text_width)
    pipeline.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    with pytest.raises(ValueError, match="take enable_model_cpu_offload"):
        with self_correcting(pipeline, adapter, text):
            pass
