"""Models of every family as the host's own loaders bring them."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from comfy import sdxl_clip
from comfy.model_base import ModelType
from comfy.text_encoders import sd2_clip
from dpt_pack.nodes.host.encode import encode_prompt
from dpt_pack.nodes.host.lora import with_lora
from real_files import MODEL_CHANNELS, TEXT_WIDTHS, real_config, write_unet
from runs import corrected, distance, latents, sample
from tiny_models import model_patcher, random_lora, tiny_adapter


def text(family: str, seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, 77, TEXT_WIDTHS[family], generator=generator)
    pooled = torch.randn(1, 1280, generator=generator)
    vectors = {"eos_hidden": hidden[:, 5], "pooled": pooled}
    return [[hidden, {"pooled_output": pooled, "dpt_text": vectors}]]


@pytest.mark.parametrize("family", TEXT_WIDTHS)
def test_family(family, tmp_path):
    path = write_unet(tmp_path / f"{family}.safetensors", family)
    model, *_ = comfy.sd.load_checkpoint_guess_config(str(path))
    velocity = model.model.model_type == ModelType.V_PREDICTION
    assert velocity == (family == "sd21v")
    adapter = tiny_adapter(in_channels=MODEL_CHANNELS, text_width=TEXT_WIDTHS[family])
    lora = random_lora(model_patcher(real_config(family)))
    adapter.checkpoint.lora.update(lora)
    run = {"positive": text(family, 1), "negative": text(family, 2), "latent": latents(size=8)}
    plain = sample(model, **run, steps=2)
    moved, scores = corrected(with_lora(model, adapter, 1.0), adapter)
    result = sample(moved, **run, steps=2)
    assert len(scores) == 2
    assert result.isfinite().all()
    assert distance(result, plain) > 1e-3
    assert distance(sample(corrected(model, adapter)[0], **run, steps=2), plain) > 1e-4


NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}


def clip_of(family: str):
    """A text encoder of the family's own class, narrow, with random weights."""
    from comfy.supported_models_base import ClipTarget
    from tiny_models import randomise

    config = NARROW | {"num_hidden_layers": 3, "projection_dim": 64}
    if family == "sd21":
        target = ClipTarget(sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel)
        options = {"clip_h_model_config": config}
    else:
        target = ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
        options = {"clip_l_model_config": config, "clip_g_model_config": config}
    clip = comfy.sd.CLIP(target, model_options=options)
    randomise(clip.cond_stage_model, seed=1)
    return clip


@pytest.mark.parametrize("family", ["sd21", "sdxl"])
def test_text_vectors(family):
    """y is the context's row at the end-of-text token; pooled is the host's own."""
    clip = clip_of(family)
    ((context, extra),) = encode_prompt(clip, "a red cube")
    vectors = extra["dpt_text"]
    assert torch.equal(vectors["eos_hidden"], context[:, 4])
    assert torch.equal(vectors["pooled"], extra["pooled_output"])
    assert not torch.equal(vectors["pooled"], vectors["eos_hidden"])
    weighted = encode_prompt(clip, "a (red:1.5) cube")[0][1]["dpt_text"]
    torch.testing.assert_close(weighted["eos_hidden"], vectors["eos_hidden"])
