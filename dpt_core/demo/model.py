"""The demo model's parts: a Stable Diffusion 1.x, narrow, with velocity prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import AdapterConfig

FOLDER = Path(__file__).resolve().parent
TOKENIZER = FOLDER / "tokenizer"

TEXT_WIDTH = 128
LATENT_SIDE = 16
LATENT_SCALE = 0.18215

PREVIEW = [
    [0.169, 0.066, 0.057],
    [0.078, 0.214, 0.123],
    [0.05, 0.112, 0.271],
    [0.245, 0.183, 0.107],
]
PREVIEW_BIAS = [0.777, 0.742, 0.697]
"""From a scaled latent cell to about its colour, RGB in [-1, 1]: fitted to scenes, R² 0.95."""

UNET = {
    "sample_size": LATENT_SIDE,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 64, 64, 64),
    "layers_per_block": 2,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 2,  # heads, by an old misnomer of diffusers; wide ones are fast on CPUs
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
VAE = {
    "sample_size": 128,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": LATENT_SCALE,
}
TEXT = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 4 * TEXT_WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": TEXT_WIDTH,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
ADAPTER = AdapterConfig(
    in_channels=64,
    text_width=TEXT_WIDTH,
    tap="up2",  # up1 is computed on 4 × 4 cells here and cannot tell the colours
    patch=2,
    width=128,
    feed_forward=512,
    encoder_layers=2,
    grounding_queries=20,
    classes=65,
    phrase_width=TEXT_WIDTH,
    dropout=0.0,
)


def new_unet() -> Any:
    """An untrained UNet."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**UNET)


def new_vae() -> Any:
    """An untrained autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)


def new_text_encoder(tokenizer: Any) -> Any:
    """An untrained text encoder for a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    pad = tokenizer.pad_token_id
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=len(tokenizer), pad_token_id=pad, **ends, **TEXT)
    )


def load_tokenizer() -> Any:
    """The demo's tokenizer: CLIP's rules with a vocabulary of the shapes world."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TOKENIZER)


def pipeline(parts: Any) -> Any:
    """A diffusers pipeline with DDIM.

    Args:
        parts: has `unet`, `vae`, `text_encoder` and `tokenizer`.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    made = StableDiffusionPipeline(
        unet=parts.unet,
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made
