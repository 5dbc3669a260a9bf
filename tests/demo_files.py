"""The demo model's files for tests: its weights, random ones, and a diffusers model directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.checkpoint import Checkpoint, save_checkpoint
from dpt_core.demo import model
from dpt_core.demo.architectures import ARCHITECTURES, UNET
from dpt_core.demo.load import CHECKPOINT, demo_file, load_demo
from dpt_core.lora import lora_key


def demo_folder(spare: Path, architecture: str = UNET) -> Path:
    """Where the demo's weights are; random ones are written to a spare folder if none ship."""
    if (model.FOLDER / ARCHITECTURES[architecture].checkpoint).is_file():
        return model.FOLDER
    write_random_demo(spare)
    return spare


def write_random_demo(folder: Path) -> None:
    """Files of the demo model with random weights."""
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = model.load_tokenizer()
        networks = {kind.part: kind.new() for kind in ARCHITECTURES.values()}
        others = {"vae": model.new_vae(), "text_encoder": model.new_text_encoder(tokenizer)}
        for part, module in (networks | others).items():
            tensors = {key: _random(key, value) for key, value in module.state_dict().items()}
            save_file(tensors, folder / f"{part}.safetensors")
        for kind in ARCHITECTURES.values():
            adapter = DiscriminativeAdapter(kind.adapter).requires_grad_(False).eval()
            lora = _random_lora(networks[kind.part])
            save_checkpoint(folder / kind.checkpoint, Checkpoint(kind.adapter, adapter, lora))


def shorten_training(prompt: dict) -> None:
    """Make a prompt in the API's format train for a moment, where it trains."""
    drawn = any(node["class_type"] == "DPT_ScenePrompts" for node in prompt.values())
    for node in prompt.values():
        if drawn and node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 12  # what is drawn must be something
        if node["class_type"] == "DPT_TrainingData":
            node["inputs"]["folder"] = "demo scenes (200)"
        if node["class_type"] == "DPT_ScenePrompts":
            node["inputs"]["count"] = 12
        if node["class_type"] == "DPT_TrainAdapter":
            node["inputs"]["steps"] = 2


def write_model_folder(target: Path, weights: Path = model.FOLDER) -> None:
    """Write the demo as a diffusers model directory, as users have them, its checkpoint beside."""
    load_demo(weights).pipeline.save_pretrained(target)
    shutil.copy(demo_file(CHECKPOINT, weights), target)


def _random(name: str, like: torch.Tensor) -> torch.Tensor:
    """Half precision weights that keep activations at unit scale."""
    values = torch.randn(like.shape)
    if like.ndim > 1:
        values *= like[0].numel() ** -0.5
    else:
        values = 0.1 * values + ("norm" in name and name.endswith("weight"))
    return values.half()


def _random_lora(unet: nn.Module, rank: int = 4) -> dict[str, torch.Tensor]:
    lora = {}
    for name, module in unet.named_modules():
        if name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
            out, into = module.weight.shape
            lora[lora_key(name, "down")] = torch.randn(rank, into) / into**0.5
            lora[lora_key(name, "up")] = torch.randn(out, rank) * 0.3
    return lora
