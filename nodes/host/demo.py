"""The demo model in the host's own classes, from the files that diffusers reads too.

Everything is float32, whatever the host would choose: 5 million weights, the same picture
everywhere.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import comfy.latent_formats
import comfy.model_management as management
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget

from ...dpt_core.checkpoint import load_checkpoint
from ...dpt_core.demo import model as sizes
from ...dpt_core.demo import transformer
from ...dpt_core.demo.architectures import DIT, UNET, architecture_of
from ...dpt_core.demo.load import TEXT_PREFIX, demo_file, read_weights
from .adapter import LoadedAdapter, managed

NAME = "the demo model's checkpoint"


class DemoModels(NamedTuple):
    """What DPT_DemoModel gives."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    adapter: LoadedAdapter


def load_demo(folder: str | Path = sizes.FOLDER, architecture: str = UNET) -> DemoModels:
    """Load the demo model for the host; the network is not used.

    Args:
        folder: where its weights are.
        architecture: "unet" or "dit".

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged; there is no such architecture.
    """
    kind = architecture_of(architecture)
    with torch.inference_mode(False):
        checkpoint = load_checkpoint(demo_file(kind.checkpoint, folder))
    network, tokens = (_transformer, ShortTokens) if architecture == DIT else (_unet, Tokens)
    return DemoModels(
        network(read_weights(kind.part, folder)),
        _clip(read_weights("text_encoder", folder), tokens),
        _vae(read_weights("vae", folder)),
        managed(NAME, checkpoint),
    )


def outside_its_world(clip: Any, text: str) -> str:
    """What to say of a prompt that the demo model cannot draw; "" for others and other models."""
    if not isinstance(getattr(getattr(clip, "tokenizer", None), "clip_l", None), Tokens):
        return ""
    from ...dpt_core.shapes.caption import parse

    try:
        parse(text)
    except ValueError as error:
        return f"{error}. What the demo draws instead, and its score, mean little"
    return ""


class DemoConfig(comfy.supported_models.SD15):
    """SD 1.x with velocity prediction."""

    unet_extra_config = {
        "num_heads": sizes.UNET["attention_head_dim"],  # the number of heads, despite its name
        "num_head_channels": -1,
    }

    def __init__(self, unet_config: dict[str, Any]) -> None:
        super().__init__(unet_config)
        _own_previews(self.latent_format)

    def model_type(self, state_dict: dict, prefix: str = "") -> ModelType:
        return ModelType.V_PREDICTION


class DemoTransformerConfig(comfy.supported_models.SD3):
    """Stable Diffusion 3 on the latents of the demo's autoencoder."""

    latent_format = comfy.latent_formats.SD15
    sampling_settings = {"shift": transformer.SHIFT}

    def __init__(self, unet_config: dict[str, Any]) -> None:
        super().__init__(unet_config)
        _own_previews(self.latent_format)


def _own_previews(latents: Any) -> None:
    latents.taesd_decoder_name = None  # SD 1.x's preview decoder knows other latents
    latents.latent_rgb_factors = sizes.PREVIEW
    latents.latent_rgb_factors_bias = sizes.PREVIEW_BIAS


class TextEncoder(sd1_clip.SDClipModel):
    """A CLIP text encoder of the demo's size.

    Args:
        vocabulary: number of tokens; as CLIP has it, the last two are start and end of text.
        length: tokens of a chunk of text.
    """

    def __init__(
        self,
        device: Any = "cpu",
        dtype: Any = None,
        model_options: Any = None,
        *,
        vocabulary: int,
        length: int,
    ) -> None:
        start, end = vocabulary - 2, vocabulary - 1
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config={
                **sizes.TEXT,
                "max_position_embeddings": length,
                "eos_token_id": end,
            },
            special_tokens={"start": start, "end": end, "pad": end},
            return_projected_pooled=False,
            model_options=model_options or {},
        )
        tokens = self.operations.Embedding(
            vocabulary, sizes.TEXT_WIDTH, dtype=dtype, device=device
        )  # the host's own has CLIP's 49408 rows, whatever the config says
        self.transformer.set_input_embeddings(tokens.requires_grad_(False))


class Tokens(sd1_clip.SDTokenizer):
    """The demo's vocabulary in the host's tokenizer."""

    length = sizes.TEXT["max_position_embeddings"]

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        super().__init__(
            str(sizes.TOKENIZER),
            max_length=self.length,
            embedding_directory=embedding_directory,
            embedding_size=sizes.TEXT_WIDTH,
            tokenizer_data=tokenizer_data or {},
        )


class ShortTokens(Tokens):
    """The same, as many as the transformer was trained with."""

    length = transformer.TOKENS


def _unet(weights: dict[str, torch.Tensor]) -> ModelPatcher:
    config = _unet_config()
    names = comfy.utils.unet_to_diffusers(config)
    return _patcher(DemoConfig(config), {names[key]: value for key, value in weights.items()})


def _transformer(weights: dict[str, torch.Tensor]) -> ModelPatcher:
    config, last = _transformer_config(), transformer.BLOCKS - 1
    places = comfy.utils.mmdit_to_diffusers(config)
    for end in ("weight", "bias"):
        for block in (config["depth"] - 1, last):  # the host takes the former for the last one
            host = f"joint_blocks.{block}.context_block.adaLN_modulation.1.{end}"
            change = comfy.utils.swap_scale_shift if block == last else None
            places[f"transformer_blocks.{block}.norm1_context.linear.{end}"] = (host, None, change)
    return _patcher(DemoTransformerConfig(config), in_host_names(weights, places))


def in_host_names(
    weights: dict[str, torch.Tensor], places: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Weights of a transformer of diffusers under the host's names.

    Args:
        weights: by diffusers' names; all of them.
        places: of the host's own maps: a name, or a name with which part of it this is
            (dimension 0, start, length), and what changes it.
    """
    found: dict[str, torch.Tensor] = {}
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for key, value in weights.items():
        place = places[key]
        name, part, change = (*([place] if isinstance(place, str) else place), None, None)[:3]
        value = value if change is None else change(value)
        if part is None:
            found[name] = value
        else:
            parts.setdefault(name, {})[part[1]] = value
    whole = {name: torch.cat([each[at] for at in sorted(each)]) for name, each in parts.items()}
    return found | whole


def _patcher(config: Any, weights: dict[str, torch.Tensor]) -> ModelPatcher:
    config.set_inference_dtype(torch.float32, None)
    offload = management.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    model.diffusion_model.load_state_dict(weights)
    return ModelPatcher(model, load_device=management.get_torch_device(), offload_device=offload)


def _transformer_config() -> dict[str, Any]:
    """The host's words for the demo's transformer."""
    config = transformer.TRANSFORMER
    text, width = config["joint_attention_dim"], config["caption_projection_dim"]
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "patch_size": config["patch_size"],
        "input_size": None,
        "depth": transformer.HEADS,  # of which the host makes heads and width, too
        "num_blocks": transformer.BLOCKS,
        "adm_in_channels": config["pooled_projection_dim"],
        "num_patches": config["pos_embed_max_size"] ** 2,
        "pos_embed_max_size": config["pos_embed_max_size"],
        "pos_embed_scaling_factor": None,
        "qk_norm": "rms",
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": text, "out_features": width},
        },
    }


def _unet_config() -> dict[str, Any]:
    """The host's words for the demo's UNet."""
    widths, layers = sizes.UNET["block_out_channels"], sizes.UNET["layers_per_block"]
    depths = [int(kind.startswith("CrossAttn")) for kind in sizes.UNET["down_block_types"]]
    return {
        "image_size": sizes.LATENT_SIDE,
        "in_channels": sizes.UNET["in_channels"],
        "out_channels": sizes.UNET["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "context_dim": sizes.TEXT_WIDTH,
        "transformer_depth": [depth for depth in depths for _ in range(layers)],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [depth for depth in depths for _ in range(layers + 1)],
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "use_spatial_transformer": True,
        "legacy": False,
        "use_checkpoint": False,
    }


def _clip(weights: dict[str, torch.Tensor], tokens: type[Tokens]) -> comfy.sd.CLIP:
    vocabulary = len(weights["embeddings.token_embedding.weight"])
    target = ClipTarget(
        partial(sd1_clip.SD1Tokenizer, tokenizer=tokens),
        partial(
            sd1_clip.SD1ClipModel,
            clip_model=partial(TextEncoder, vocabulary=vocabulary, length=tokens.length),
        ),
    )
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    places = "embeddings.position_embedding.weight"
    weights[places] = weights[places][: tokens.length]
    weights = {TEXT_PREFIX + key: tensor for key, tensor in weights.items()}
    weights["text_projection.weight"] = torch.eye(sizes.TEXT_WIDTH)  # SD 1.x projects nothing
    clip.cond_stage_model.clip_l.transformer.load_state_dict(weights)
    return clip


def _vae(weights: dict[str, torch.Tensor]) -> comfy.sd.VAE:
    widths = sizes.VAE["block_out_channels"]
    config = {
        "double_z": True,
        "z_channels": sizes.VAE["latent_channels"],
        "resolution": sizes.VAE["sample_size"],
        "in_channels": sizes.VAE["in_channels"],
        "out_ch": sizes.VAE["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": sizes.VAE["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    params = {"ddconfig": config, "embed_dim": sizes.VAE["latent_channels"]}
    return comfy.sd.VAE(sd=weights, config={"params": params}, dtype=torch.float32)
