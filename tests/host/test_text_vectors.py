"""Text vectors of transformer families: narrow text encoders behind the host's own tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

import comfy.sd
import pytest
import torch
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama
from dpt_pack.dpt_core.adapter import DiscriminativeAdapter
from dpt_pack.dpt_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dpt_pack.dpt_core.config import AdapterConfig
from dpt_pack.nodes.host.backbones.tokens import TokenBackbone
from dpt_pack.nodes.host.encode import encode_prompt, own_tokens
from dpt_pack.nodes.host.texts import text_vector
from tiny_models import randomise
from tiny_transformers import TINY, adapter_for, tiny_transformer
from torch import nn

from nodes import CLIPTextEncode

PROMPT = "a (red:1.3) cube on the left of two blue spheres"
WIDTH = 16

QWEN = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
T5 = {"d_model": WIDTH, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 2}
CLIP_L = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2,
    "num_hidden_layers": 2, "projection_dim": WIDTH,
}  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """A family's text encoder in the host.

    Attributes:
        module, tokenizer, model: where it is, and the calls that give its classes.
        sizes: configs that make it narrow.
        name: of the tokenizer whose tokens the conditioning's states belong to.
        layers: how many layers' states stand side by side.
        weights: whether the tokenizer reads prompt weights.
    """

    module: str
    tokenizer: str
    model: str
    sizes: dict[str, Any]
    name: str
    layers: int = 1
    weights: bool = False


ENCODERS = {
    "z_image": Encoder(
        "z_image", "ZImageTokenizer", "te", {"qwen3_4b_model_config": QWEN}, "qwen3_4b"
    ),
    "qwen_image": Encoder(
        "qwen_image", "QwenImageTokenizer", "te",
        {"qwen25_7b_model_config": QWEN}, "qwen25_7b",
    ),
    "flux2": Encoder(
        "flux", "KleinTokenizer", "klein_te",
        {"qwen3_4b_model_config": QWEN | {"num_hidden_layers": 28}}, "qwen3_4b", layers=3,
    ),
    "flux": Encoder(
        "flux", "FluxTokenizer", "flux_clip",
        {"t5xxl_model_config": T5, "clip_l_model_config": CLIP_L}, "t5xxl", weights=True,
    ),
    "anima": Encoder(
        "anima", "AnimaTokenizer", "te", {"qwen3_06b_model_config": QWEN}, "qwen3_06b",
        weights=True,
    ),
    "chroma": Encoder(
        "pixart_t5", "PixArtTokenizer", "pixart_te", {"t5xxl_model_config": T5}, "t5xxl",
        weights=True,
    ),
}  # fmt: skip


def _present(encoder: Encoder) -> bool:
    try:
        module = import_module(f"comfy.text_encoders.{encoder.module}")
    except ImportError:
        return False
    return hasattr(module, encoder.tokenizer)


every_encoder = pytest.mark.parametrize(
    "family", [family for family, encoder in ENCODERS.items() if _present(encoder)]
)


@cache
def clip_of(family: str) -> comfy.sd.CLIP:
    encoder = ENCODERS[family]
    if not _present(encoder):
        pytest.skip(f"this ComfyUI has no {encoder.tokenizer}")
    module = import_module(f"comfy.text_encoders.{encoder.module}")
    target = ClipTarget(getattr(module, encoder.tokenizer), getattr(module, encoder.model)())
    eye = patch.object(llama.qwen_vl, "Qwen2VLVisionTransformer", lambda **sizes: nn.Identity())
    with torch.inference_mode(), eye:  # no picture is shown to it
        clip = comfy.sd.CLIP(target, model_options=encoder.sizes)
        randomise(clip.cond_stage_model, 0)
    return clip


def vectors(conditioning: list) -> dict[str, Any]:
    return conditioning[0][1]["dpt_text"]


@every_encoder
def test_the_mean_is_over_the_prompts_own_tokens(family):
    """Not over the template and the padding; of stacked layers the last."""
    encoder, clip = ENCODERS[family], clip_of(family)
    words = PROMPT.replace("(red:1.3)", "red") if encoder.weights else PROMPT
    start, end, total = own_tokens(clip, encoder.name, words)
    ids = [token[0] for chunk in clip.tokenize(words)[encoder.name] for token in chunk]
    parts = clip.tokenizer
    tokenizer = getattr(parts, getattr(parts, "clip", encoder.name)).tokenizer
    assert tokenizer.decode(ids[start:end]).strip() == words
    assert len(ids) == total

    states = CLIPTextEncode().encode(clip, words)[0][0][0]
    first = start - (total - states.shape[1])
    last_layer = states.shape[-1] // encoder.layers * (encoder.layers - 1)
    expected = states[:, first : first + end - start, last_layer:].float().mean(1)
    torch.testing.assert_close(vectors(encode_prompt(clip, words))["mean"], expected)


@every_encoder
def test_the_conditioning_is_the_hosts_own(family):
    clip = clip_of(family)
    ours, host = encode_prompt(clip, PROMPT), CLIPTextEncode().encode(clip, PROMPT)[0]
    assert torch.equal(ours[0][0], host[0][0])
    assert set(ours[0][1]) == {*host[0][1], "dpt_text"}


@every_encoder
def test_weights_never_enter_and_no_words_mean_nothing(family):
    clip = clip_of(family)
    if ENCODERS[family].weights:
        other = vectors(encode_prompt(clip, PROMPT.replace("1.3", "0.4")))["mean"]
        torch.testing.assert_close(vectors(encode_prompt(clip, PROMPT))["mean"], other)
    nothing = vectors(encode_prompt(clip, ""))["mean"]
    assert nothing.shape == vectors(encode_prompt(clip, "a"))["mean"].shape
    assert not nothing.any()
    config = AdapterConfig(
        in_channels=8, text_width=WIDTH, family=family, tap="block0", text="mean"
    )
    assert text_vector({"dpt_text": {"mean": nothing}}, config, backbone("z_image")) is None


def backbone(family: str) -> TokenBackbone:
    return TokenBackbone(tiny_transformer(family).model, family)


def test_flux_compares_with_clip_l():
    """Also from the host's own node: its pooled output is that vector."""
    clip, words = clip_of("flux"), "a red cube"
    config = adapter_for("flux", text_width=WIDTH).config
    ours = text_vector(encode_prompt(clip, words)[0][1], config, backbone("flux"))
    host = text_vector(CLIPTextEncode().encode(clip, words)[0][0][1], config, backbone("flux"))
    assert torch.equal(ours, host) and ours.shape == (1, WIDTH)


def test_sd3_compares_with_the_first_768_and_wants_clip_l():
    config = adapter_for("sd3", text_width=768).config
    pooled = torch.randn(1, 2048, generator=torch.Generator().manual_seed(1))
    found = text_vector({"pooled_output": pooled}, config, backbone("sd3"))
    assert torch.equal(found, pooled[:, :768])
    pooled[:, :768] = 0  # as the host does without CLIP-L
    with pytest.raises(ValueError, match="lack it: load clip_l"):
        text_vector({"pooled_output": pooled}, config, backbone("sd3"))


def test_a_language_models_text_needs_our_node():
    config = adapter_for("z_image").config
    with pytest.raises(ValueError, match="encode the prompt with DPT_TextEncode"):
        text_vector({"pooled_output": torch.ones(1, 24)}, config, backbone("z_image"))


def test_the_mean_and_scale_of_training_are_kept(tmp_path):
    """In the checkpoint; a file without them compares with the vector as it is."""
    config = AdapterConfig(
        in_channels=8, text_width=3, family="z_image", tap="block0", text="mean", width=32,
        feed_forward=32, grounding_queries=2, phrase_width=4,
    )  # fmt: skip
    with torch.inference_mode(False):
        adapter, text = DiscriminativeAdapter(config), torch.tensor([[1.0, 200.0, 3.0]])
        assert torch.equal(adapter.compared(text), text)
        bare = {key: each for key, each in adapter.state_dict().items() if "text_" not in key}
        adapter.text_mean[:], adapter.text_scale[:] = torch.tensor([0.0, 198.0, 1.0]), 2.0
        file = tmp_path / "adapter.safetensors"
        save_checkpoint(file, Checkpoint(config, adapter))
        assert load_checkpoint(file).adapter.compared(text).tolist() == [[0.5, 1.0, 1.0]]

        from safetensors.torch import save_file

        named = {f"adapter.{key}": each for key, each in bare.items()}
        save_file(named, file, metadata={"dpt_config": config.to_json()})
        assert torch.equal(load_checkpoint(file).adapter.compared(text), text)


def test_every_family_has_a_source():
    for family, tiny in TINY.items():
        if family in ENCODERS:
            assert tiny.text in vectors(encode_prompt(clip_of(family), "a cube"))
