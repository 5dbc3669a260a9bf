"""The adapter as the host handles it: a file in `models/dpt`, then a managed model."""

from __future__ import annotations

import os
from dataclasses import dataclass

import comfy.model_management as management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...dpt_core.checkpoint import Checkpoint, load_checkpoint
from ...dpt_core.config import AdapterConfig

FOLDER = "dpt"
EXTENSIONS = {".safetensors", ".bin"}

AdapterIO = io.Custom("DPT_ADAPTER")


@dataclass(frozen=True)
class LoadedAdapter:
    """What travels along a DPT_ADAPTER wire.

    Attributes:
        name: file name, for messages.
        checkpoint: config, adapter and LoRA as read.
        patcher: the adapter under the host's memory management.
    """

    name: str
    checkpoint: Checkpoint
    patcher: ModelPatcher

    @property
    def config(self) -> AdapterConfig:
        return self.checkpoint.config


def register_model_folder() -> None:
    """Make `models/dpt` known to the host, beside paths from `extra_model_paths.yaml`."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, EXTENSIONS)


def load_adapter(path: str) -> LoadedAdapter:
    """Load a checkpoint for use in the host.

    Raises:
        dpt_core.CheckpointError: the file is no DPT checkpoint.
    """
    with torch.inference_mode(False):
        checkpoint = load_checkpoint(path)
    return managed(os.path.basename(path), checkpoint)


def managed(name: str, checkpoint: Checkpoint) -> LoadedAdapter:
    """Put a checkpoint's adapter under the host's memory management."""
    patcher = ModelPatcher(
        checkpoint.adapter,
        load_device=management.get_torch_device(),
        offload_device=management.unet_offload_device(),
    )
    return LoadedAdapter(name, checkpoint, patcher)
