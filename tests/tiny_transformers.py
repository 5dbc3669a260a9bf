"""Narrow random transformers of every family, built from the host's own classes.

One table for all tests that go through the families. Imported inside a running ComfyUI.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any
from unittest.mock import patch

import comfy.supported_models as supported
import pytest
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.flux.model import FluxParams
from comfyui_version import __version__
from packaging.version import Version
from tiny_models import model_patcher, randomise, tiny_adapter

WIDTH = 64
TEXT = 48
"""Width of the text encoders' states."""
VECTOR = 24
"""Width of the text vectors y."""
OLD = Version(__version__) < Version("0.4")
"""A host before 0.18, where some nodes and families of the host fail by themselves."""
ODD = (7, 9)
"""An odd latent size: the host pads it."""

_ROPE = [8, 12, 12]


@dataclass(frozen=True)
class Tiny:
    """One family.

    Attributes:
        model: the host's class of its model config.
        config: what its network is built from.
        channels: of its latents.
        taps: at least one per stack.
        frames: whether its latents are `[B, C, 1, h, w]`.
        text: the source of its text vector.
        pooled: width of the pooled output that its conditioning carries.
        extra: more that its conditioning carries, from the numbers of rows and tokens.
        references: whether it takes reference latents.
        patched: what to replace in the host while the network is built.
        width: channels of a token.
    """

    model: str
    config: dict[str, Any]
    channels: int = 16
    taps: tuple[str, ...] = ("block1",)
    frames: bool = False
    text: str = "mean"
    pooled: int | None = None
    extra: Callable[[int, int], dict[str, Any]] = lambda rows, tokens: {}
    references: bool = False
    patched: Callable[[], Any] = nullcontext
    width: int = WIDTH


def _flux(**changes: Any) -> dict[str, Any]:
    return {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": VECTOR, "context_in_dim": TEXT,
        "hidden_size": WIDTH, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2,
        "depth_single_blocks": 2, "axes_dim": _ROPE, "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [], "image_model": "flux",
        **changes,
    }  # fmt: skip


def _without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


def _lumina(**changes: Any) -> dict[str, Any]:
    return {
        "patch_size": 2, "in_channels": 16, "dim": WIDTH, "n_layers": 3, "n_refiner_layers": 1,
        "n_heads": 2, "n_kv_heads": 2, "multiple_of": 16, "ffn_dim_multiplier": 4.0,
        "qk_norm": True, "cap_feat_dim": TEXT, "axes_dims": _ROPE, "axes_lens": [300, 512, 512],
        "image_model": "lumina2", **changes,
    }  # fmt: skip


def _masked(rows: int, tokens: int) -> dict[str, Any]:
    """The last tokens are padding."""
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[:, tokens - 3 :] = 0
    return {"attention_mask": mask}


def _llama(rows: int, tokens: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(tokens)
    return {"conditioning_llama3": torch.randn(rows, 4, tokens, TEXT, generator=generator)}


def _narrow_anima() -> Any:
    """The text adapter of Anima has no sizes of its own in the config."""
    import comfy.ldm.anima.model as anima

    sizes = {"source_dim": TEXT, "target_dim": TEXT, "model_dim": 32, "num_layers": 1}
    return patch.object(anima, "LLMAdapter", partial(anima.LLMAdapter, **sizes, num_heads=2))


TINY: dict[str, Tiny] = {
    "z_image": Tiny(
        "ZImage",
        _lumina(
            dim=256, n_heads=8, n_kv_heads=8, ffn_dim_multiplier=1.0, z_image_modulation=True,
            time_scale=1000.0, pad_tokens_multiple=32,
        ),
        width=256,  # the host's modulation has this width whatever the network's
    ),
    "qwen_image": Tiny(
        "QwenImage",
        {
            "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 3,
            "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": TEXT,
            "axes_dims_rope": _ROPE, "image_model": "qwen_image",
        },
        frames=True, extra=_masked, references=True,
    ),
    "flux2": Tiny(
        "Flux2",
        _flux(
            in_channels=128, out_channels=128, vec_in_dim=None, patch_size=1, mlp_ratio=3.0,
            axes_dim=[8, 8, 8, 8], theta=2000, global_modulation=True, mlp_silu_act=True,
            qkv_bias=False, ops_bias=False, default_ref_method="index", ref_index_scale=10.0,
            txt_ids_dims=[3], guidance_embed=False, image_model="flux2",
        ),
        channels=128, taps=("block1", "block2"), references=True,
    ),
    "flux": Tiny(
        "Flux", _flux(), taps=("block1", "block2"), text="pooled", pooled=VECTOR, references=True
    ),
    "krea2": Tiny(
        "Krea2",
        {
            "features": WIDTH, "tdim": 32, "txtdim": TEXT // 2, "heads": 2, "kvheads": 1,
            "multiplier": 2, "layers": 3, "patch": 2, "channels": 16, "txtlayers": 2,
            "txtheads": 2, "txtkvheads": 2, "default_ref_method": "index_timestep_zero",
            "image_model": "krea2",
        },
        frames=True, references=True,
    ),
    "anima": Tiny(
        "Anima",
        {
            "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
            "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": WIDTH,
            "concat_padding_mask": True, "crossattn_emb_channels": TEXT, "pos_emb_cls": "rope3d",
            "num_blocks": 3, "num_heads": 2, "use_adaln_lora": True, "adaln_lora_dim": 16,
            "image_model": "anima",
        },
        frames=True, patched=_narrow_anima,
    ),
    "sd3": Tiny(
        "SD3",
        {
            "in_channels": 16, "patch_size": 2, "depth": 1, "num_blocks": 3, "input_size": None,
            "adm_in_channels": 64, "num_patches": 256, "pos_embed_max_size": 16,
            "pos_embed_scaling_factor": None, "qk_norm": "rms", "x_block_self_attn_layers": [0],
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": TEXT, "out_features": 64},
            },
        },
        text="pooled", pooled=64,
    ),
    "lumina2": Tiny("Lumina2", _lumina(), extra=_masked),
    "chroma": Tiny(
        "Chroma",
        _without(
            _flux(
                in_channels=64, out_channels=64, in_dim=64, out_dim=WIDTH, hidden_dim=32,
                n_layers=1, image_model="chroma",
            ),
            "guidance_embed",
        ),
        taps=("block1", "block2"),
    ),
    "hidream": Tiny(
        "HiDream",
        {
            "patch_size": 2, "in_channels": 16, "num_layers": 2, "num_single_layers": 2,
            "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": [TEXT, TEXT],
            "text_emb_dim": VECTOR, "num_routed_experts": 2, "num_activated_experts": 1,
            "axes_dims_rope": (16, 8, 8), "max_resolution": (64, 64),
            "llama_layers": [0, 1, 2, 3], "image_model": "hidream",
        },
        taps=("block1", "block2"), text="pooled", pooled=VECTOR, extra=_llama,
    ),
    "wan": Tiny(
        "WAN21_T2V",
        {
            "model_type": "t2v", "dim": WIDTH, "ffn_dim": 128, "freq_dim": 32, "text_dim": TEXT,
            "in_dim": 16, "out_dim": 16, "num_heads": 2, "num_layers": 3, "image_model": "wan2.1",
        },
        frames=True,
    ),
}  # fmt: skip
"""The families, those that most people use first."""

PRESENT = [family for family, tiny in TINY.items() if hasattr(supported, tiny.model)]
"""The families of this host."""

every_family = pytest.mark.parametrize("family", PRESENT)


def model_config(family: str) -> Any:
    """The host's model config of a narrow network; skips the test where the host has none."""
    tiny = TINY[family]
    if family not in PRESENT:
        pytest.skip(f"this ComfyUI has no {tiny.model}")
    if OLD and family in ("chroma", "lumina2"):
        pytest.skip(f"this ComfyUI's own {tiny.model} cannot be differentiated, or run narrow")
    sizes = known(tiny.config)
    config = getattr(supported, tiny.model)(dict(sizes))
    config.unet_config = dict(sizes)  # no real sizes from the class
    return config


def known(config: dict[str, Any]) -> dict[str, Any]:
    """What this host's Flux or Chroma takes of a config; newer ones take more."""
    kinds = {"flux": FluxParams, "flux2": FluxParams, "chroma": ChromaParams}
    if (kind := kinds.get(config.get("image_model"))) is None:
        return config
    names = {"image_model", *(field.name for field in fields(kind))}
    return {name: value for name, value in config.items() if name in names}


def tiny_transformer(family: str, seed: int = 3, dtype: torch.dtype = torch.float32) -> Any:
    """A random narrow model of a family, as the host's loaders give it."""
    with TINY[family].patched():
        patcher = model_patcher(model_config(family), dtype)
    randomise(patcher.model.diffusion_model, seed)
    return patcher


def adapter_for(family: str, tap: str | None = None, **fields: Any) -> Any:
    """A random adapter that reads a family."""
    tiny = TINY[family]
    fields = {"in_channels": tiny.width, "text_width": VECTOR, **fields}
    return tiny_adapter(family=family, tap=tap or tiny.taps[0], text=tiny.text, **fields)


def text_for(family: str, seed: int = 0, rows: int = 1, tokens: int = 12, **extra: Any) -> list:
    """A CONDITIONING as the family's text encoders give it, with its text vector."""
    tiny, generator = TINY[family], torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, tokens, TEXT, generator=generator)
    vector = torch.randn(rows, VECTOR, generator=generator)
    carried = {"dpt_text": {tiny.text: vector}, **tiny.extra(rows, tokens), **extra}
    if tiny.pooled:
        pooled = torch.randn(rows, tiny.pooled, generator=generator)
        pooled[:, :VECTOR] = vector
        carried["pooled_output"] = pooled
    return [[hidden, carried]]


def shape_for(family: str, rows: int = 2, size: tuple[int, int] = ODD) -> tuple[int, ...]:
    """Shape of a family's latents."""
    tiny = TINY[family]
    return (rows, tiny.channels, *((1,) if tiny.frames else ()), *size)


def latent_for(family: str, rows: int = 1, size: tuple[int, int] = ODD) -> dict[str, torch.Tensor]:
    """An empty LATENT of a family."""
    return {"samples": torch.zeros(shape_for(family, rows, size))}
