"""SD 3 and Flux with the same weights draw the same corrected picture here and in diffusers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.supported_models as supported
import comfy.utils
import pytest
import torch
from dpt_pack.dpt_core.backbones.autoencoders import decode
from dpt_pack.dpt_core.backbones.registry import backbone_of
from dpt_pack.dpt_core.correction import MODES, PRESETS, Correction
from dpt_pack.dpt_core.diffusers import self_correcting
from dpt_pack.dpt_core.host_names import stored
from dpt_pack.dpt_core.lora import lora_key, merge_lora
from dpt_pack.nodes.host.demo import in_host_names
from dpt_pack.nodes.host.lora import with_lora
from runs import corrected, sample
from tiny_models import model_patcher, tiny_adapter
from tiny_pipelines import pipeline_of, scheduler_of
from tiny_transformers import known

STEPS, SEED, VECTOR, TOKENS = 4, 7, 24, 12
SIZE = (6, 10)
"""Latent cells: diffusers takes even numbers only. Tokens: 3 × 5."""

HOST = {
    "sd3": {
        "in_channels": 16, "patch_size": 2, "depth": 3, "input_size": None, "adm_in_channels": 64,
        "num_patches": 256, "pos_embed_max_size": 16, "pos_embed_scaling_factor": None,
        "qk_norm": "rms", "x_block_self_attn_layers": [0],
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 192},
        },
    },
    "flux": {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": VECTOR, "context_in_dim": 48,
        "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
        "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2, "qkv_bias": True,
        "guidance_embed": True, "txt_ids_dims": [], "image_model": "flux",
    },
}  # fmt: skip
DIFFUSERS = {
    "sd3": {
        "attention_head_dim": 64, "num_attention_heads": 3, "joint_attention_dim": 48,
        "caption_projection_dim": 192, "pooled_projection_dim": 64,
    },
    "flux": {
        "attention_head_dim": 32, "joint_attention_dim": 48, "pooled_projection_dim": VECTOR,
        "axes_dims_rope": (8, 12, 12),
    },
}  # fmt: skip
NAMES = {"sd3": "mmdit_to_diffusers", "flux": "flux_to_diffusers"}
ATTENTION = (".attn.to_q", ".attn.to_k", ".attn.to_v", ".to_out.0")
POOLED = {"sd3": 64, "flux": VECTOR}


def host_of(family: str, weights: dict[str, torch.Tensor]) -> Any:
    """The host's model with the weights of a diffusers transformer, by the host's own names."""
    sizes = known(HOST[family])
    config = {"sd3": supported.SD3, "flux": supported.Flux}[family](dict(sizes))
    config.unet_config = dict(sizes)
    patcher = model_patcher(config)
    network = patcher.model.diffusion_model
    into = network.state_dict()
    found = in_host_names(weights, getattr(comfy.utils, NAMES[family])(HOST[family]))
    # Hosts of before named the scales of norms otherwise.
    named = {n if n in into else n.replace("norm.weight", "norm.scale"): found[n] for n in found}
    assert set(named) == set(into)
    network.load_state_dict(named)
    return patcher


@pytest.fixture(scope="module", params=HOST)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipeline(family):
    with torch.inference_mode(False):
        made = pipeline_of(family, **DIFFUSERS[family])
        made.scheduler = scheduler_of()  # it takes the host's sigmas as they are
    return made


@pytest.fixture(scope="module")
def model(family, pipeline):
    return host_of(family, pipeline.transformer.state_dict())


def text(family: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States and pooled vector of a prompt; y is the beginning of the latter."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, TOKENS, 48, generator=generator)
    return states, torch.randn(1, POOLED[family], generator=generator)


def adapter_of(family: str, model: Any) -> Any:
    width = {"sd3": 192, "flux": 64}[family]
    tap = {"sd3": "block1", "flux": "block2"}[family]
    return tiny_adapter(family=family, tap=tap, text="pooled", in_channels=width, text_width=VECTOR)


def in_host(model, family, adapter, correction, cfg):
    conds = []
    for seed in (1, 2):
        states, pooled = text(family, seed)
        vector = {"pooled": pooled[:, :VECTOR]}
        conds.append([[states, {"pooled_output": pooled, "dpt_text": vector}]])
    scores = []
    if correction is not None:
        settings = {name: value for name, value in vars(correction).items()}
        model, scores = corrected(model, adapter, **settings)
    latent = {"samples": torch.zeros(1, 16, *SIZE)}
    drawn = sample(model, *conds, latent, steps=STEPS, cfg=cfg, seed=SEED, scheduler="simple")
    return model.model.process_latent_in(drawn), torch.tensor([float(each) for each in scores])


def in_diffusers(pipeline, model, family, adapter, correction, cfg):
    backbone = backbone_of(pipeline)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)[:-1].tolist()
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, *SIZE), SEED)
    (states, pooled), (others, empty) = (text(family, seed) for seed in (1, 2))
    arguments = {
        "prompt_embeds": states, "pooled_prompt_embeds": pooled, "sigmas": sigmas,
        "num_inference_steps": STEPS, "latents": backbone.packed(noise), "output_type": "latent",
        "height": SIZE[0] * 8, "width": SIZE[1] * 8, "guidance_scale": cfg,
    }  # fmt: skip
    if family == "sd3":
        arguments |= {
            "negative_prompt_embeds": others, "negative_pooled_prompt_embeds": empty,
        }  # fmt: skip
    else:
        arguments["guidance_scale"] = 3.5  # what the host tells it unless told otherwise
        if cfg > 1:
            arguments |= {
                "true_cfg_scale": cfg, "negative_prompt_embeds": others,
                "negative_pooled_prompt_embeds": empty,
            }  # fmt: skip
    correction = correction or Correction(strength=0.0)
    with torch.inference_mode(False):
        with self_correcting(pipeline, adapter, pooled[:, :VECTOR], correction) as run:
            drawn = pipeline(**arguments).images
    scores = torch.cat(run.scores) if run.scores else torch.empty(0)
    return backbone.unpacked(drawn, SIZE), scores


def test_same_lora(model, pipeline, family):
    """A LoRA of diffusers' layers, stored under the host's names: the same in both."""
    generator = torch.Generator().manual_seed(3)
    network, lora = deepcopy(pipeline.transformer), {}
    for name, layer in network.named_modules():
        if name.endswith(ATTENTION) and isinstance(layer, torch.nn.Linear):
            down = torch.randn(2, layer.in_features, generator=generator) * 0.2
            up = torch.randn(layer.out_features, 2, generator=generator) * 0.2
            lora |= {lora_key(name, "down"): down, lora_key(name, "up"): up}
    merge_lora(own := deepcopy(network), lora)
    kept = stored(network, lora)
    assert all(key.startswith("diffusion_model.") for key in kept)
    merge_lora(network, kept)
    for name, weight in own.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weight, atol=1e-5, rtol=1e-5)
    adapter = tiny_adapter(family=family, tap="block1", text="pooled")
    checkpoint = replace(adapter.checkpoint, lora=kept)
    with torch.inference_mode():
        tuned = with_lora(model, replace(adapter, checkpoint=checkpoint), 1.0)
        found, _ = in_host(tuned, family, None, None, 1.0)
        plain, _ = in_host(model, family, None, None, 1.0)
        wanted, _ = in_host(host_of(family, network.state_dict()), family, None, None, 1.0)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4
    assert float((found - plain).norm() / plain.norm()) > 1e-3


def decibels(pipeline, one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the pictures."""
    pictures = [(decode(pipeline.vae, each.clone()) / 2 + 0.5).clamp(0, 1) for each in (one, other)]
    return -10 * float(torch.log10((pictures[0] - pictures[1]).square().mean() + 1e-20))


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("mode", [None, *MODES])
def test_same_picture(model, pipeline, family, mode, cfg):
    with torch.inference_mode():
        adapter = adapter_of(family, model).patcher.model
        loaded = adapter_of(family, model)
        correction = mode and replace(PRESETS["balanced"], mode=mode, end_percent=1.0)
        plain, _ = in_host(model, family, loaded, None, cfg)
        wanted, told = in_host(model, family, loaded, correction, cfg)
        found, scores = in_diffusers(pipeline, model, family, adapter, correction, cfg)
        assert decibels(pipeline, found, wanted) >= 40
        assert float((found - wanted).norm() / wanted.norm()) < 1e-3
    if mode:
        assert float((plain - wanted).norm() / wanted.norm()) > 1e-2
        torch.testing.assert_close(scores, told, atol=1e-4, rtol=0)
