"""The demo's transformer: a Stable Diffusion 3, narrow, which denoises along straight lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from . import model

TOKENS = 24
"""Tokens that a caption is cut or filled up to; the longest of the shapes world has 23."""

SHIFT = 2.0
"""Of the sampling schedule towards high noise, where layouts form."""

BLOCKS, HEADS = 8, 2
"""A head has 64 channels, as ComfyUI's class for Stable Diffusion 3 wants it."""

TRANSFORMER = {
    "sample_size": model.LATENT_SIDE,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": BLOCKS,
    "attention_head_dim": 64,
    "num_attention_heads": HEADS,
    "joint_attention_dim": model.TEXT_WIDTH,
    "caption_projection_dim": 64 * HEADS,
    "pooled_projection_dim": model.TEXT_WIDTH,
    "pos_embed_max_size": model.LATENT_SIDE,
    "qk_norm": "rms_norm",
}
ADAPTER = replace(
    model.ADAPTER, in_channels=64 * HEADS, tap="block3", patch=1, text="pooled", family="sd3"
)
SCHEDULER = {"num_train_timesteps": 1000, "shift": SHIFT}


def new_transformer() -> Any:
    """An untrained transformer."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(**TRANSFORMER)


def start(transformer: Any) -> Any:
    """Start an untrained transformer as arXiv 2212.09748 does: every block is the identity, and
    nothing is predicted."""
    for name, weight in transformer.named_parameters():
        if ".linear." in name and "norm" in name or name.startswith("proj_out"):
            nn.init.zeros_(weight)
    return transformer


def pipeline(parts: Any) -> Any:
    """A diffusers pipeline with Euler steps.

    Args:
        parts: has `transformer`, `vae`, `text_encoder` and `tokenizer`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    from .shapes_pipeline import shapes_pipeline

    parts.tokenizer.model_max_length = TOKENS
    parts.vae.register_to_config(shift_factor=0.0)
    made = shapes_pipeline()(
        transformer=parts.transformer,
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        **dict.fromkeys(("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")),
    )
    made.set_progress_bar_config(disable=True)
    return made
