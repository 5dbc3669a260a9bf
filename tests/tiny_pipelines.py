"""Narrow random pipelines of every transformer family that diffusers runs, from its own classes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backbones.registry import backbone_of
from dpt_core.config import AdapterConfig
from dpt_core.demo.model import load_tokenizer

TEXT = 32
"""Width of the text encoders, and of every text vector."""
SIZE = (48, 80)
"""Pixels: 3 × 5 tokens."""
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)

TAPS = {"sd3": "block1", "flux": "block2", "qwen_image": "block1", "z_image": "block1"}
"""Family → a tap; of Flux behind both kinds of blocks."""

every_pipeline = pytest.mark.parametrize("family", TAPS)


def pipeline_of(family: str, seed: int = 0, **config: Any) -> Any:
    """A pipeline of a family, its progress bar off.

    Args:
        config: of the transformer.
    """
    torch.manual_seed(seed)
    pipeline = {"sd3": _sd3, "flux": _flux, "qwen_image": _qwen, "z_image": _z_image}[family](
        **config
    )
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    _randomise(pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def adapter_for(family: str, pipeline: Any, tap: str | None = None, **more: Any) -> Any:
    """A random adapter that reads a pipeline."""
    torch.manual_seed(5)
    backbone, tap = backbone_of(pipeline), tap or TAPS[family]
    fields = {
        "in_channels": backbone.taps()[tap], "text_width": TEXT, "family": family, "tap": tap,
        "text": backbone.texts[0], "width": 16, "heads": 2, "feed_forward": 32,
        "grounding_queries": 4, "classes": 8, "contrastive_width": 8, "phrase_width": TEXT,
    }  # fmt: skip
    adapter = DiscriminativeAdapter(AdapterConfig(**fields | more)).eval().requires_grad_(False)
    if adapter.config.text == "mean":
        adapter.text_mean.normal_()
        adapter.text_scale.uniform_(0.5, 2.0)
    return adapter


def _randomise(network: torch.nn.Module) -> None:
    """Everything counts: also what starts as zero."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in network.parameters():
            scale = 0.1 if weight.ndim < 2 else 0.6 / weight[0].numel() ** 0.5
            noise = torch.randn(weight.shape, generator=generator) * scale
            weight.copy_(noise + (1.0 if weight.ndim == 1 and bool((weight == 1).all()) else 0.0))


def scheduler_of(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


def _vae(latent_channels: int = 16) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[8] * 4, norm_num_groups=4, latent_channels=latent_channels,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def _clip(projection: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = load_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=TEXT, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=tokenizer.model_max_length,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


@cache
def byte_tokenizer(template: str | None = None) -> Any:
    """A token a byte, and the marks of a chat."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocabulary += sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: index for index, token in enumerate(vocabulary)}
    plain = Tokenizer(models.BPE(vocab=ids, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", padding_side="right",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"], chat_template=template,
    )  # fmt: skip


def _sd3(**config: Any) -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    fields = {
        "sample_size": 8, "in_channels": 16, "num_layers": 3, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 2 * TEXT, "caption_projection_dim": 32,
        "pooled_projection_dim": 2 * TEXT, "out_channels": 16, "pos_embed_max_size": 16,
        "qk_norm": "rms_norm", "dual_attention_layers": (0,),
    }  # fmt: skip
    first = _clip(projection=True)
    first.text_projection.weight.data = torch.eye(TEXT)  # as in the published model
    tokenizer = load_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**fields | config), scheduler=scheduler_of(shift=3.0),
        vae=_vae(), text_encoder=first, text_encoder_2=_clip(projection=True),
        tokenizer=tokenizer, tokenizer_2=tokenizer, text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def sdxl_pipeline() -> Any:
    """SDXL: two text encoders, and a UNet that is told the size."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32, 32), norm_num_groups=8, attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1, cross_attention_dim=2 * TEXT, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT + 6 * 8,
    )  # fmt: skip
    tokenizer = load_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        unet=unet, vae=_vae(latent_channels=4), scheduler=DDIMScheduler(),
        text_encoder=_clip(projection=False), text_encoder_2=_clip(projection=True),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _flux(**config: Any) -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    fields = {
        "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": TEXT, "pooled_projection_dim": TEXT,
        "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    tokenizer = byte_tokenizer()
    t5 = T5Config(
        vocab_size=len(tokenizer), d_model=TEXT, d_kv=8, d_ff=64, num_layers=1, num_heads=2
    )
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(**fields | config), vae=_vae(),
        scheduler=scheduler_of(use_dynamic_shifting=True), text_encoder=_clip(projection=False),
        tokenizer=load_tokenizer(), text_encoder_2=T5EncoderModel(t5), tokenizer_2=tokenizer,
    )  # fmt: skip
    pipeline.default_sample_size = 8
    return pipeline


def _qwen(**config: Any) -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    fields = {
        "in_channels": 64, "out_channels": 16, "num_layers": 3, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": TEXT, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    tokenizer = byte_tokenizer()
    language = {
        "vocab_size": len(tokenizer), "hidden_size": TEXT, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    sight = {
        "depth": 1, "hidden_size": TEXT, "intermediate_size": 64, "num_heads": 2,
        "out_hidden_size": TEXT,
    }  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1] * 16, latents_std=[0.7] * 16,
    )  # fmt: skip
    pipeline = QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(**fields | config), vae=vae,
        scheduler=scheduler_of(use_dynamic_shifting=True), tokenizer=tokenizer,
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=language, vision_config=sight)
        ),
    )  # fmt: skip
    pipeline.prompt_template_encode = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    pipeline.prompt_template_encode_start_idx = 6
    pipeline.default_sample_size = 8
    return pipeline


def _z_image(**config: Any) -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    fields = {
        "in_channels": 16, "dim": 32, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 2,
        "n_kv_heads": 2, "cap_feat_dim": TEXT, "axes_dims": [4, 6, 6], "axes_lens": [600, 64, 64],
    }  # fmt: skip
    tokenizer = byte_tokenizer(CHAT)
    language = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(**fields | config), vae=_vae(),
        scheduler=scheduler_of(shift=3.0), text_encoder=Qwen3Model(language), tokenizer=tokenizer,
    )  # fmt: skip
