"""Gradients through a real host model agree with finite differences, however it is loaded."""

from __future__ import annotations

import weakref

import comfy.ops
import pytest
import torch
from dpt_pack.nodes.host.gradients import mutation_allowed
from dpt_pack.nodes.host.lora import with_lora
from probe import check_finite_differences, gradient_of, probe
from tiny_models import (
    FAMILIES,
    model_patcher,
    narrow,
    tiny_adapter,
    tiny_model,
    tiny_text,
    unet_config,
    with_control,
)


@pytest.fixture
def texts():
    return tiny_text(1), tiny_text(2)


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_normally(family, texts):
    check_finite_differences(tiny_model(family), tiny_adapter(), *texts)


@pytest.mark.parametrize("tap", ["bottom1", "bottom3", "mid", "up0", "up2", "up3"])
def test_every_tap(tap, texts):
    channels = 32 if tap == "up3" else 64
    check_finite_differences(
        tiny_model("sd15"), tiny_adapter(tap=tap, in_channels=channels), *texts
    )


def test_with_lora(texts):
    model = tiny_model("sd15")
    adapter = tiny_adapter(lora_for=model)
    patched = with_lora(model, adapter, 1.0)
    check_finite_differences(patched, adapter, *texts)
    assert not torch.allclose(
        gradient_of(patched, adapter, *texts), gradient_of(model, adapter, *texts), rtol=0.01
    )


def stream(patcher) -> None:
    """Take the whole model off the device again, as the host does when memory is short."""
    patcher.partially_unload(patcher.offload_device, 1 << 40)


def test_streamed_with_lora(texts):
    """Patches of streamed weights are applied on the fly."""
    model = tiny_model("sd15")
    adapter = tiny_adapter(lora_for=model)
    patched = with_lora(model, adapter, 1.0)
    expected = gradient_of(patched, adapter, *texts)
    patched.detach()
    check_finite_differences(patched, adapter, *texts, prepare=stream)
    streamed = gradient_of(patched, adapter, *texts, prepare=stream)
    torch.testing.assert_close(streamed, expected, rtol=1e-3, atol=1e-7)


def reuse_one_buffer(monkeypatch) -> list[int]:
    """Let the host cast every weight into one buffer, as it does on a GPU short of memory."""
    cast, calls = comfy.ops.cast_bias_weight, []
    with torch.inference_mode(False):
        buffer = torch.empty(1 << 20)

    def cast_into_buffer(module, x=None, *args, **kwargs):
        weight, bias, *stream = cast(module, x, *args, **kwargs)
        calls.append(weight.numel())
        shared = buffer[: weight.numel()].view(weight.shape)
        shared.copy_(weight)
        return (shared, bias, *stream)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast_into_buffer)
    return calls


def test_reused_buffers_do_not_spoil_the_gradient(texts, monkeypatch):
    model = tiny_model("sd15", dtype=torch.float16)  # cast to float32 layer by layer
    adapter = tiny_adapter()
    expected = gradient_of(model, adapter, *texts)
    calls = reuse_one_buffer(monkeypatch)
    actual = gradient_of(model, adapter, *texts)
    assert calls
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compute", ["cast", "native"])
def test_half_precision(dtype, compute, texts):
    full = gradient_of(tiny_model("sd15"), tiny_adapter(), *texts)
    model = tiny_model("sd15", dtype=dtype)
    if compute == "native":
        model.model.manual_cast_dtype = None
        model.model.diffusion_model.apply(turn_off_casting)
    half = gradient_of(model, tiny_adapter(), *texts)
    cosine = torch.nn.functional.cosine_similarity(full.flatten(1), half.flatten(1))
    assert cosine.min() >= 0.99
    assert half.dtype == torch.float32


def turn_off_casting(module: torch.nn.Module) -> None:
    if hasattr(module, "comfy_cast_weights"):
        module.comfy_cast_weights = False


def test_with_control_net(texts):
    positive, negative = texts
    model, adapter = tiny_model("sd15"), tiny_adapter()
    check_finite_differences(model, adapter, with_control(positive), negative)
    controlled = gradient_of(model, adapter, with_control(positive), negative)
    assert not torch.allclose(controlled, gradient_of(model, adapter, *texts), rtol=0.01)


def quantised(family: str):
    """A tiny model with the host's scaled fp8 linear layers, and the same weights dequantised."""
    plain = tiny_model(family)
    tensors = plain.model.diffusion_model.state_dict()
    stored = {}
    for name, tensor in list(tensors.items()):
        if name.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight", ".net.2.weight")):
            scale = tensor.abs().amax() / torch.finfo(torch.float8_e4m3fn).max
            low = (tensor / scale).to(torch.float8_e4m3fn)
            tensors[name] = low.float() * scale
            module = name.removesuffix("weight")
            layout = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
            stored |= {name: low, module + "weight_scale": scale, module + "comfy_quant": layout}
    plain.model.diffusion_model.load_state_dict(tensors)
    config = narrow(family, unet_config(family))
    config.quant_config = {"mixed_ops": True}
    patcher = model_patcher(config)
    patcher.model.load_model_weights({**tensors, **stored}, "")
    return patcher, plain


@pytest.mark.skipif(
    not hasattr(comfy.ops, "mixed_precision_ops"), reason="this host has no quantised models"
)
def test_quantised(texts):
    """The gradient of a quantised model is that of its dequantised weights."""
    model, plain = quantised("sd21")
    kinds = {type(tensor).__name__ for tensor in model.model.diffusion_model.parameters()}
    assert "QuantizedTensor" in kinds
    actual, expected = (
        gradient_of(candidate, tiny_adapter(), *texts) for candidate in (model, plain)
    )
    assert (actual - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_rows_are_split_until_they_fit(texts, monkeypatch):
    """Rows one by one give the gradient of all rows together."""
    model, adapter = tiny_model("sd15"), tiny_adapter()
    together = gradient_of(model, adapter, *texts, size=(3, 4, 16, 16))
    parts = []

    def look(scorer, apply_model, call, rows) -> None:
        monkeypatch.setattr(scorer, "_rows_that_fit", lambda x: 1)
        parts.append(scorer.gradients(apply_model, call, rows, call.x)[1])

    probe(model, adapter, *texts, look, size=(3, 4, 16, 16))
    assert (parts[0] - together).abs().max() <= 1e-4 * together.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_blocks_give_the_same_gradient(family, texts, monkeypatch):
    """Where not even one row fits, blocks are computed again on the way back."""
    model, adapter = tiny_model(family), tiny_adapter()
    stored = gradient_of(model, adapter, *texts)
    found = []

    def look(scorer, apply_model, call, rows) -> None:
        monkeypatch.setattr(scorer, "_rows_that_fit", lambda x: 0)
        found.append((scorer, scorer.gradients(apply_model, call, rows, call.x)[1]))

    probe(model, adapter, *texts, look)
    scorer, recomputed = found[0]
    assert scorer._recompute
    assert (recomputed - stored).abs().max() <= 1e-5 * stored.abs().max()


def test_a_kept_tensor_that_is_changed_stays():
    """Else another one may come to lie at its address, and torch takes it for the first."""
    with torch.inference_mode(False), torch.enable_grad(), mutation_allowed():
        x = torch.arange(3.0, requires_grad=True)
        kept = x * 2
        there = weakref.ref(kept)
        total = (kept**2).sum()
        kept.mul_(3)
        del kept
        assert there() is not None
        (gradient,) = torch.autograd.grad(total, x)
        torch.testing.assert_close(gradient, 8 * x.detach())
    assert there() is None
