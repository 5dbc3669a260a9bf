"""Checkpoint files as the host's own loaders expect them: real architecture, random weights.

Every level of the UNet has the width of the first, which keeps the files small and is all that
differs from the published models.
"""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import torch
from comfy.cldm.cldm import ControlNet
from safetensors.torch import save_file
from tiny_models import model_patcher, narrow_vae, randomise

MODEL_CHANNELS = 320
TEXT_WIDTHS = {"sd15": 768, "sd21": 1024, "sd21v": 1024, "sdxl": 2048}
VELOCITY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""The host takes an SD 2.x for a v-prediction model where this bias varies widely."""


def real_config(family: str):
    """The host's model config of a family, as it detects it in a file."""
    kind = {"sd15": supported.SD15, "sdxl": supported.SDXL}.get(family, supported.SD20)
    config = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 1, 1, 1], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1, "use_spatial_transformer": True, "legacy": False,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_checkpoint": False,
        **kind.unet_config,
    }  # fmt: skip
    if family == "sdxl":
        config |= {
            "num_res_blocks": [2, 2, 2], "channel_mult": [1, 1, 1], "num_classes": "sequential",
            "transformer_depth_middle": 10,
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        }  # fmt: skip
    return kind(config)


def write_unet(path: Path, family: str) -> Path:
    """A checkpoint that holds a UNet only."""
    patcher = model_patcher(real_config(family))
    randomise(patcher.model.diffusion_model, seed=0)
    tensors = patcher.model.diffusion_model.state_dict()
    tensors = {f"model.diffusion_model.{key}": value.half() for key, value in tensors.items()}
    if family.startswith("sd21"):
        tensors[VELOCITY] *= 5 if family == "sd21v" else 0.1
    save_file(tensors, path)
    return path


def write_checkpoint(path: Path) -> None:
    """A whole SD 2.1 checkpoint: UNet, text encoder and VAE."""
    config = real_config("sd21")
    model = model_patcher(config, torch.float16)
    target = config.clip_target()
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float16})
    vae = narrow_vae(ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2)
    parts = model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model
    for seed, part in enumerate(parts):
        randomise(part, seed)
    comfy.sd.save_checkpoint(str(path), model, clip, vae)


def write_control_net(path: Path) -> None:
    """A ControlNet for the checkpoint of :func:`write_checkpoint`."""
    config = real_config("sd21").unet_config
    known = {
        key: value
        for key, value in config.items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    model = ControlNet(
        **known, hint_channels=3, operations=comfy.ops.disable_weight_init, device="cpu"
    )
    randomise(model, seed=3)
    tensors = {f"control_model.{key}": value.half() for key, value in model.state_dict().items()}
    save_file(tensors, path)
