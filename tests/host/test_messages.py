"""What people are told when something does not fit. Nothing of it may start sampling."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import comfy.supported_models as supported
import pytest
import torch
from comfy.ldm.flux.model import FluxParams
from comfy_extras import nodes_torch_compile
from dpt_pack.dpt_core.checkpoint import CheckpointError
from dpt_pack.dpt_core.correction import CUSTOM, PRESETS, Correction
from dpt_pack.nodes.host.adapter import load_adapter
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.lora import with_lora
from dpt_pack.nodes.host.measure import measure
from runs import call, corrected, sample
from tiny_models import model_patcher, tiny_adapter, tiny_model, tiny_text


@pytest.fixture
def model():
    return tiny_model("sd21")


def without_vector(conditioning: list) -> list:
    ((hidden, _),) = conditioning
    return [[hidden, {"pooled_output": hidden[:, 5]}]]


def test_no_text_vector(model):
    """SD 2.x cannot do with the pooled output."""
    moved, scores = corrected(model, tiny_adapter())
    with pytest.raises(ValueError, match="DPT_TextEncode instead of CLIPTextEncode"):
        sample(moved, without_vector(tiny_text(1)))
    assert not scores
    sample(moved)


@pytest.mark.parametrize("family, text", [("sd15", "eos_hidden"), ("sd21", "pooled")])
def test_pooled_output_serves_where_it_is_the_same(family, text):
    moved, scores = corrected(tiny_model(family), tiny_adapter(text=text))
    sample(moved, without_vector(tiny_text(1)))
    assert scores


def test_text_of_another_family(model):
    moved, _ = corrected(model, tiny_adapter(text_width=48))
    with pytest.raises(ValueError, match="text vector of width 48.*brings 64"):
        sample(moved)


def test_adapter_of_another_family(model):
    with pytest.raises(ValueError, match="expects 40 channels at tap up1.*has 64"):
        corrected(model, tiny_adapter(in_channels=40))
    with pytest.raises(ValueError, match="expects 40 channels"):
        measure(
            model, tiny_adapter(in_channels=40), torch.zeros(1, 4, 8, 8), tiny_text(), 500, 1, 0
        )


def test_a_tap_the_model_lacks():
    with pytest.raises(ValueError, match="tap 'up3', the model has bottom0.* up2: load"):
        corrected(tiny_model("sdxl"), tiny_adapter(tap="up3"))


def test_a_model_without_unet():
    known = {"theta": 10000, "qkv_bias": True, "guidance_embed": False, "axes_dim": [8, 12, 12]}
    sizes = {"in_channels": 16, "out_channels": 16, "depth": 1, "depth_single_blocks": 1}
    values = [*known.items(), *sizes.items(), ("mlp_ratio", 1.0), ("txt_ids_dims", [])]
    wanted = {field.name for field in dataclasses.fields(FluxParams)}
    config = {name: 64 for name in wanted} | {"num_heads": 2, "patch_size": 2}
    config |= {name: value for name, value in values if name in wanted}
    flux = model_patcher(supported.Flux({"image_model": "flux", **config}))
    with pytest.raises(ValueError, match="family unet, the model is of family flux"):
        corrected(flux, tiny_adapter())
    if "global_modulation" not in wanted:
        return  # this ComfyUI's Flux is of one kind
    config |= {"vec_in_dim": None, "global_modulation": None}
    other = model_patcher(supported.Flux({"image_model": "flux", **config}))
    with pytest.raises(ValueError, match="transformers sd3, .*; the wired model is a Flux. Wire"):
        corrected(other, tiny_adapter())


def test_a_compiled_model(model):
    compiled = call(nodes_torch_compile.TorchCompileModel, model=model, backend="inductor")
    with pytest.raises(ValueError, match="remove the TorchCompileModel node"):
        corrected(compiled, tiny_adapter())
    patched = model.clone()
    block = model.model.diffusion_model.middle_block
    patched.add_object_patch("diffusion_model.middle_block", torch.compile(block))
    with pytest.raises(ValueError, match="compiled model"):
        corrected(patched, tiny_adapter())


class Int8Linear(torch.nn.Module):
    """A linear layer on the integer matrix product, as int8 packs have it."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.scale = float(weight.abs().amax() / 127)
        self.register_buffer("quantised", (weight / self.scale).round().to(torch.int8).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, scale = x.flatten(0, -2), x.detach().abs().amax() / 127
        product = torch._int_mm((rows / scale).round().to(torch.int8), self.quantised)
        return (product * (scale * self.scale)).view(*x.shape[:-1], -1)


def test_a_quantised_model_without_gradient(model):
    """Integer layers have no backward pass, but the residual connections around them do."""
    attention = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1
    attention.to_q = Int8Linear(attention.to_q.weight)
    assert sample(model).isfinite().all()
    moved, scores = corrected(model, tiny_adapter())
    with pytest.raises(ValueError, match=r"cannot differentiate.*Int8Linear.*Load it unquantised"):
        sample(moved)
    assert not scores


class HiddenWeight(torch.nn.Module):
    """A layer whose weight is no parameter, as some quantising packs have it."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.hidden = [weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.hidden[0])


def test_a_model_that_hides_its_weights(model):
    attention = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1
    attention.to_q = HiddenWeight(attention.to_q.weight.clone())
    moved, _ = corrected(model, tiny_adapter())
    with pytest.raises(ValueError, match=r"cannot differentiate.*hides its weights"):
        sample(moved)


def test_no_lora_to_apply(model):
    with pytest.raises(ValueError, match="tiny.safetensors brings no LoRA.*remove DPT_ApplyLoRA"):
        with_lora(model, tiny_adapter(), 1.0)


def test_lora_of_another_family(model):
    adapter = tiny_adapter(lora_for=tiny_model("sdxl"))
    with pytest.raises(ValueError, match="another model family"):
        with_lora(model, adapter, 1.0)


def test_lora_of_another_width(model):
    adapter = tiny_adapter(lora_for=model)
    narrow = {
        key: tensor[..., :-1] if key.endswith("down.weight") else tensor
        for key, tensor in adapter.checkpoint.lora.items()
    }
    adapter.checkpoint.lora.clear()
    adapter.checkpoint.lora.update(narrow)
    with pytest.raises(ValueError, match="another model family"):
        with_lora(model, adapter, 1.0)


def test_no_lora_strength_is_the_model_itself(model):
    assert with_lora(model, tiny_adapter(lora_for=model), 0.0) is model


def test_a_file_that_is_no_adapter(tmp_path):
    path = tmp_path / "vae.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"vae.safetensors cannot be read"):
        load_adapter(str(path))


def test_start_after_end():
    with pytest.raises(ValueError, match="must not exceed"):
        Correction(start_percent=0.5, end_percent=0.2)


def test_a_range_without_steps_warns(model, caplog):
    correction = replace(PRESETS["published"], strength=1.0, start_percent=0.3, end_percent=0.31)
    moved = with_self_correction(model, tiny_adapter(), correction)
    with caplog.at_level("WARNING"):
        sample(moved, steps=2)
    assert "no step was corrected" in caplog.text


def test_gradients_that_are_not_finite(model, caplog, monkeypatch):
    """One picture of the batch stays uncorrected, the run goes on and says so once."""
    from dpt_pack.nodes.host import scoring

    adapter = tiny_adapter()
    plain = sample(model, latent={"samples": torch.zeros(2, 4, 16, 16)})
    original = scoring.Scorer.gradients

    def broken(self, *args):
        scores, gradient = original(self, *args)
        gradient[0, 0, 0, 0] = torch.nan
        return scores, gradient

    monkeypatch.setattr(scoring.Scorer, "gradients", broken)
    moved, _ = corrected(model, adapter)
    with caplog.at_level("WARNING"):
        result = sample(moved, latent={"samples": torch.zeros(2, 4, 16, 16)})
    torch.testing.assert_close(result[0], plain[0])
    assert not torch.allclose(result[1], plain[1], atol=1e-3)
    assert caplog.text.count("gradient not finite") == 1


def test_presets_take_the_place_of_settings():
    names = [field.name for field in dataclasses.fields(Correction)]
    custom = dict(zip(names, (3.0, 0.1, 0.2, 5, "lagged", "normalised", 1), strict=True))
    assert Correction.chosen(CUSTOM, **custom) == Correction(**custom)
    published = Correction.chosen("published", **custom)
    assert published == Correction(0.5, 0.0, 1.0, 1, "exact", "published", 1)
    assert Correction.chosen("fast", **custom) != Correction.chosen("balanced", **custom)
    assert Correction.chosen("balanced", **custom) == Correction()
