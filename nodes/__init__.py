"""The pack's nodes. Each file holds one node; what they share lies in `nodes.host`."""

from __future__ import annotations

import importlib
import logging

from comfy_api.latest import ComfyExtension, io

from .host.adapter import register_model_folder

logger = logging.getLogger(__name__)

NODES = {
    "load_adapter": "LoadAdapter",
    "apply_lora": "ApplyLoRA",
    "text_encode": "TextEncode",
    "self_correction": "SelfCorrection",
    "ksampler": "KSampler",
    "search_ksampler": "SearchKSampler",
    "alignment_score": "AlignmentScore",
    "select_best": "SelectBest",
    "compare": "Compare",
    "ground_phrase": "GroundPhrase",
    "explain": "Explain",
    "scene_prompts": "ScenePrompts",
    "demo_model": "DemoModel",
    "training_data": "TrainingData",
    "train_adapter": "TrainAdapter",
    "save_adapter": "SaveAdapter",
    "tune_lora": "TuneLoRA",
}
"""Class by file, in the order of the node list."""


class DPTExtension(ComfyExtension):
    """What ComfyUI asks for our node list."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node that loads in this ComfyUI; what does not is logged, a sentence each."""
        register_model_folder()
        loaded = [_load(file, name) for file, name in NODES.items()]
        return [node for node in loaded if node is not None]


def _load(file: str, name: str) -> type[io.ComfyNode] | None:
    """A node whose schema can be made, or None: one that fails must not take the others along."""
    try:
        node = getattr(importlib.import_module(f".{file}", __package__), name)
        node.define_schema()
    except Exception as error:  # whatever a moved or renamed part of the host leads to
        logger.error(
            "DPT: the node %s is missing, for this ComfyUI lacks what it needs (%s: %s). The other "
            "DPT nodes work. Update the pack; docs/hosts.md lists what it relies on",
            name, type(error).__name__, error,
        )  # fmt: skip
        logger.debug("DPT: %s", name, exc_info=True)
        return None
    return node
