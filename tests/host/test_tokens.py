"""Transformers of the host: gradients, corrections too small to see, and what is refused."""

from __future__ import annotations

import comfy.model_management as management
import comfy.ops
import pytest
import torch
from dpt_pack.dpt_core.backbones.base import rows_of
from dpt_pack.dpt_core.checkpoint import Checkpoint, save_checkpoint
from dpt_pack.dpt_core.correction import Correction
from dpt_pack.nodes.host.adapter import load_adapter
from dpt_pack.nodes.host.backbones.tokens import TokenBackbone
from dpt_pack.nodes.host.calls import ModelCall
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.gradients import Differentiable
from dpt_pack.nodes.host.lora import with_lora
from dpt_pack.nodes.host.plain import with_scores_read
from dpt_pack.nodes.host.progress import ShowPlainScores
from probe import probe
from runs import distance, sample
from tiny_models import model_patcher, tiny_adapter
from tiny_transformers import (
    OLD,
    PRESENT,
    TINY,
    VECTOR,
    adapter_for,
    every_family,
    latent_for,
    model_config,
    shape_for,
    text_for,
    tiny_transformer,
)

SIGMA = 0.7


def look_at(family, look, model=None, adapter=None, **options):
    """Let `look(scorer, apply_model, call, rows)` see one call of a tiny model."""
    model = model or tiny_transformer(family)
    options = {"sigma": SIGMA, "size": shape_for(family), **options}
    positive = options.pop("positive", None) or text_for(family, 1)
    negative = options.pop("negative", None) or text_for(family, 2, tokens=9)
    seen = []

    def once(*args) -> None:
        seen.append(look(*args))

    probe(model, adapter or adapter_for(family), positive, negative, once, **options)
    assert len(seen) == 1
    return seen[0]


def gradient_of(family, **options) -> torch.Tensor:
    """The score's gradient at one call."""

    def look(scorer, apply_model, call, rows) -> torch.Tensor:
        return scorer.gradients(apply_model, call, rows, call.x[rows.index])[1]

    return look_at(family, look, **options)


def differs(scorer, apply_model, call, rows) -> float:
    """How far the gradient is from central differences (of fourth order) along itself, relative."""
    x = call.x[rows.index]
    _, gradient = scorer.gradients(apply_model, call, rows, x)
    norms = gradient.flatten(1).norm(dim=1)
    assert norms.min() > 0

    def score_at(far: float) -> torch.Tensor:
        unit = gradient / norms.view(-1, *[1] * (x.ndim - 1))
        moved = call.x.clone()
        moved[rows.index] = x + far * unit
        there = ModelCall(moved, call.sigma, call.options, call.inputs)
        return scorer.scores(apply_model, there, rows).double()

    found = []
    for far in (0.03, 0.01, 0.003):  # the adapter has kinks: one of them lies beyond
        near, wide = score_at(far) - score_at(-far), score_at(2 * far) - score_at(-2 * far)
        found.append(((8 * near - wide) / (12 * far) - norms).abs() / norms)
    return float(torch.stack(found).amin(0).max())


@every_family
def test_gradients_agree_with_differences(family):
    for tap in TINY[family].taps:
        adapter = adapter_for(family, tap)
        positive = text_for(family, 5 if OLD else 1)  # 0.3.64 has other numbers, and a kink at 1
        assert look_at(family, differs, adapter=adapter, positive=positive) <= 1e-3


@every_family
def test_a_batch_of_prompts_is_as_each_alone(family):
    """Three pictures with a prompt each: every row has the gradient that it has alone."""
    size, positive = shape_for(family, 3), text_for(family, 1, rows=3)
    together = gradient_of(family, positive=positive, size=size)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(3))
    for row in (0, 2):
        ((hidden, extra),) = positive
        alone = [[hidden[row : row + 1], rows_of(extra, torch.tensor([row]), 3)]]
        found = gradient_of(family, positive=alone, noise=noise[row : row + 1])
        assert (found - together[row : row + 1]).abs().max() <= 1e-4 * together.abs().max()


@pytest.mark.parametrize("family", [name for name in PRESENT if TINY[name].references])
def test_reference_latents(family):
    """The picture's own tokens are read, whatever follows them."""
    reference = torch.randn(
        shape_for(family, 1, (6, 4)), generator=torch.Generator().manual_seed(8)
    )
    positive = text_for(family, 1, reference_latents=[reference])
    assert look_at(family, differs, positive=positive) <= 1e-3
    with_it = gradient_of(family, positive=positive)
    assert distance(with_it, gradient_of(family)) > 0.01
    told = look_at(family, lambda scorer, apply, call, rows: call.inputs, positive=positive)
    assert [each.shape[-2:] for each in told["ref_latents"]] == [(6, 4)]  # memory counts them


def overwrite_buffers(monkeypatch) -> list[int]:
    """Let the host cast weights into two buffers in turn, as a GPU short of memory does."""
    cast, calls = comfy.ops.cast_bias_weight, []
    with torch.inference_mode(False):
        buffers = torch.empty(2, 1 << 20)

    def cast_into_buffer(module, *args, **kwargs):
        weight, bias, *stream = cast(module, *args, **kwargs)
        if weight.data_ptr() != module.weight.data_ptr():  # not where it is wanted already
            shared = buffers[len(calls) % 2, : weight.numel()].view(weight.shape)
            calls.append(weight.numel())
            weight = shared.copy_(weight)
        return (weight, bias, *stream)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast_into_buffer)
    return calls


@every_family
def test_streamed_and_recomputed(family, monkeypatch):
    """Weights that are gone on the way back, and blocks computed twice, change no gradient."""
    model = tiny_transformer(family, dtype=torch.bfloat16)  # cast to float32 layer by layer
    expected = gradient_of(family, model=model)
    calls = overwrite_buffers(monkeypatch)
    streamed = gradient_of(family, model=model)
    assert calls
    torch.testing.assert_close(
        streamed, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )

    def again(scorer, apply_model, call, rows) -> torch.Tensor:
        monkeypatch.setattr(scorer, "_rows_that_fit", lambda x: 0)
        return scorer.gradients(apply_model, call, rows, call.x[rows.index])[1]

    found = look_at(family, again, model=model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def state_of(model) -> tuple:
    """What a run must leave as it was."""
    network = model.model.diffusion_model
    hooks = [len(part._forward_hooks) for part in network.modules()]
    own = [sorted(set(vars(part)) & {"forward"}) for part in network.modules()]
    weights = {name: (id(each), each.data_ptr()) for name, each in network.named_parameters()}
    return hooks, own, weights, getattr(management, "in_training", None)


def corrected(family, model, adapter, strength, **settings):
    """A self-correcting model with the scores that it gives."""
    scores = []
    correction = Correction(strength=strength, end_percent=1.0, **settings)
    listener = lambda step, steps, found: scores.append(found)  # noqa: E731
    return with_self_correction(model, adapter, correction, listener), scores


def drawn(family, model, cfg: float, rows: int = 1, steps: int = 3) -> torch.Tensor:
    return sample(
        model, text_for(family, 1), text_for(family, 2), latent_for(family, rows),
        steps=steps, cfg=cfg, scheduler="simple",
    )  # fmt: skip


@every_family
def test_a_vanishing_correction_vanishes(family):
    """In all modes, with and without guidance; and nothing stays on the model."""
    model, adapter = tiny_transformer(family), adapter_for(family)
    for cfg in (1.0, 4.0):
        plain = drawn(family, model, cfg)
        before = state_of(model)
        for mode in ("exact", "lagged", "guidance"):
            moving, scores = corrected(family, model, adapter, 1e-6, mode=mode)
            assert distance(drawn(family, moving, cfg), plain) <= 1e-4
            assert scores
        assert state_of(model) == before
        nothing, _ = corrected(family, model, adapter, 0.0)
        assert torch.equal(drawn(family, nothing, cfg), plain)


@every_family
def test_reading_the_score_on_the_way_changes_nothing(family):
    model, listener = tiny_transformer(family), ShowPlainScores("1")
    read = drawn(family, with_scores_read(model, adapter_for(family), listener), 4.0)
    assert torch.equal(read, drawn(family, model, 4.0))
    assert len(listener.scores) == 3


@pytest.mark.parametrize("family", ["z_image", "flux", "qwen_image"])
def test_a_correction_moves_what_a_turbo_model_draws(family):
    """Few steps without guidance, where only conditional rows come."""
    model, adapter = tiny_transformer(family), adapter_for(family)
    moving, scores = corrected(family, model, adapter, 40.0, mode="exact")
    plain, moved = drawn(family, model, 1.0, 2, 4), drawn(family, moving, 1.0, 2, 4)
    assert moved.isfinite().all() and distance(moved, plain) > 1e-3
    assert [len(each) for each in scores] == [2] * 4


def test_an_error_leaves_nothing_on_the_model():
    model, adapter = tiny_transformer("flux"), adapter_for("flux")

    def fail(step: int, steps: int, found: torch.Tensor) -> None:
        raise management.InterruptProcessingException

    moving = with_self_correction(model, adapter, Correction(strength=1.0, mode="exact"), fail)
    drawn("flux", model, 1.0)
    before = state_of(model)
    with pytest.raises(management.InterruptProcessingException):
        drawn("flux", moving, 1.0)
    assert state_of(model) == before


def test_a_bypass_lora_is_part_of_the_gradient(monkeypatch):
    """Its layers are protected too, where their weights are streamed."""
    bypass = pytest.importorskip("comfy.weight_adapter.bypass")
    from comfy.weight_adapter.lora import LoRAAdapter

    model = tiny_transformer("z_image", dtype=torch.bfloat16)
    manager, generator = bypass.BypassInjectionManager(), torch.Generator().manual_seed(4)
    name = "diffusion_model.layers.0.feed_forward.w1.weight"
    out, into = model.model.diffusion_model.layers[0].feed_forward.w1.weight.shape
    up, down = torch.randn(out, 2, generator=generator), torch.randn(2, into, generator=generator)
    weights = (up * 0.3, down * into**-0.5, None, None, None, None)
    manager.add_adapter(name, LoRAAdapter(set(), weights), strength=1.0)
    patched = model.clone()
    patched.set_injections("bypass_lora", manager.create_injections(patched.model))
    expected = gradient_of("z_image", model=patched)
    assert distance(expected, gradient_of("z_image", model=model)) > 1e-3
    overwrite_buffers(monkeypatch)
    found = gradient_of("z_image", model=patched)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_scaled_fp8_is_as_its_dequantised_weights():
    if not hasattr(comfy.ops, "mixed_precision_ops"):
        pytest.skip("this host has no quantised models")
    plain = tiny_transformer("z_image")
    tensors, stored = dict(plain.model.diffusion_model.state_dict()), {}
    for name in [name for name in tensors if name.endswith(("qkv.weight", "w1.weight"))]:
        scale = tensors[name].abs().amax() / torch.finfo(torch.float8_e4m3fn).max
        low = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[name] = low.float() * scale
        module = name.removesuffix("weight")
        layout = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        stored |= {name: low, module + "weight_scale": scale, module + "comfy_quant": layout}
    plain.model.diffusion_model.load_state_dict(tensors)
    config = model_config("z_image")
    config.quant_config = {"mixed_ops": True}
    low = model_patcher(config)
    low.model.load_model_weights({**tensors, **stored}, "")
    found, expected = (gradient_of("z_image", model=each) for each in (low, plain))
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_an_operation_in_place_whose_result_is_dropped_stays_in_place():
    x, y = torch.ones(3), torch.ones(3, requires_grad=True)
    with torch.inference_mode(False), torch.enable_grad(), Differentiable():
        kept = before = torch.zeros(3) + y
        kept += y
        dropped = torch.zeros(3) + y
        dropped[:2].add_(x[:2])
    assert torch.equal(before.detach(), x) and torch.equal(kept.detach(), 2 * x)
    assert dropped.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"family": "flux"}, "trained on a model of family flux, the model is of .*z_image"),
        ({"tap": "block9"}, "tap 'block9', the model has block0, block1, block2"),
        ({"in_channels": 32}, "expects 32 channels at tap block1, the model has 256"),
        ({"text": "pooled"}, "text vector 'pooled'; the text encoders of z_image give mean"),
    ],
)
def test_another_adapter_is_refused_by_name(changed, says):
    fields = {"family": "z_image", "tap": "block1", "text": "mean", "in_channels": 256, **changed}
    adapter = tiny_adapter(text_width=VECTOR, **fields)
    with pytest.raises(ValueError, match=says):
        with_self_correction(tiny_transformer("z_image"), adapter, Correction())


def test_gguf_is_refused_by_name():
    class GGMLTensor(torch.Tensor):
        """Named as that loader's."""

    model = tiny_transformer("z_image")
    layer = model.model.diffusion_model.x_embedder
    layer.weight = torch.nn.Parameter(layer.weight.as_subclass(GGMLTensor), requires_grad=False)
    with pytest.raises(ValueError, match="GGUF"):
        with_self_correction(model, adapter_for("z_image"), Correction())


def test_a_tap_that_is_skipped_is_named():
    model = tiny_transformer("chroma")
    model.model.diffusion_model.skip_mmdit = [1]
    moving, _ = corrected("chroma", model, adapter_for("chroma"), 1.0, mode="exact")
    with pytest.raises(ValueError, match="never came to tap block1"):
        drawn("chroma", moving, 1.0)


def test_films_are_refused():
    moving, _ = corrected("wan", tiny_transformer("wan"), adapter_for("wan"), 1.0, mode="exact")
    with pytest.raises(ValueError, match="2 frames"):
        sample(
            moving, text_for("wan"), text_for("wan", 2), {"samples": torch.zeros(1, 16, 2, 8, 8)},
            steps=1, cfg=1.0, scheduler="simple",
        )  # fmt: skip


def test_a_lora_under_the_hosts_names(tmp_path):
    """As other tools write them for transformers; through a checkpoint, onto the right weight."""
    model, adapter = tiny_transformer("z_image"), adapter_for("z_image")
    place, generator = "layers.1.attention.out", torch.Generator().manual_seed(2)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((256, 4), (4, 256)))
    names = [f"diffusion_model.{place}.lora_{side}.weight" for side in ("up", "down")]
    lora = dict(zip(names, (up, down), strict=True))
    file = tmp_path / "tuned.safetensors"
    save_checkpoint(file, Checkpoint(adapter.config, adapter.checkpoint.adapter, lora))
    loaded = load_adapter(str(file))
    patched = with_lora(model, loaded, 0.5)
    weight = patched.model.diffusion_model.get_submodule(place).weight.clone()
    patched.patch_model()
    found = patched.model.diffusion_model.get_submodule(place).weight
    torch.testing.assert_close(found, weight + 0.5 * (up @ down), rtol=1e-4, atol=1e-4)
    patched.unpatch_model()
    with pytest.raises(ValueError, match="another model family"):
        with_lora(tiny_transformer("flux"), loaded, 1.0)


def test_memory_is_what_was_measured_at_real_size():
    """Flux at 1024²: 4.9, 6.7 and 10 GiB at a quarter, a third and half of its blocks."""

    class Real:  # sizes alone: 12 billion parameters do not fit a test
        manual_cast_dtype = torch.bfloat16
        diffusion_model = tiny_transformer("flux").model.diffusion_model

    network = Real.diffusion_model
    network.hidden_size = 3072
    backbone = TokenBackbone(Real, "flux")
    for block, measured in ((13, 4.9), (18, 6.7), (27, 10.0)):
        estimated = backbone.saved_bytes(f"block{block}", (1, 16, 128, 128)) / 2**30
        assert measured <= estimated <= 1.1 * measured
        picture = 1, 16, 128, 128
        beside = backbone.saved_bytes(f"block{block}", picture, [picture]) / 2**30
        assert beside / estimated == pytest.approx((2 * 4096 + 512) / (4096 + 512))
