"""The DPT LoRA as patches of a host model."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.utils

from ...dpt_core.lora import PREFIX, check_strength
from .adapter import LoadedAdapter


def with_lora(model: Any, adapter: LoadedAdapter, strength: float) -> Any:
    """A clone of a model with the DPT LoRA added; it stacks with any other LoRA.

    Args:
        model: the host's ModelPatcher; not changed.
        adapter: whose LoRA.
        strength: multiplies the update; 1 as trained, 0 gives the model back as is.

    Raises:
        ValueError: the strength is out of range, the checkpoint has no LoRA, or the model lacks
            weights that it updates.
    """
    check_strength(strength)
    lora = adapter.checkpoint.lora
    if not lora:
        raise ValueError(
            f"{adapter.name} brings no LoRA (a stage-1 checkpoint): remove DPT_ApplyLoRA, or load "
            "a checkpoint from DPT tuning (stage 2)"
        )
    if strength == 0:
        return model
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(
        {key.removeprefix(PREFIX): tensor for key, tensor in lora.items()}, names
    )
    for name, patch in patches.items():
        up, down = patch.weights[:2]
        found = tuple(comfy.utils.get_attr(model.model, name).shape[:2])
        if found != (up.shape[0], down.shape[1]):
            raise ValueError(
                f"the LoRA of {adapter.name} updates a weight of {(up.shape[0], down.shape[1])} at "
                f"{name}, the wired model has {found}: it was trained on another model family"
            )
    clone = model.clone()
    applied = clone.add_patches(patches, strength)
    if 2 * len(applied) != len(lora):
        raise ValueError(
            f"the LoRA of {adapter.name} updates {len(lora) // 2} weights, the wired model has "
            f"{len(applied)} of them: it was trained on another model family"
        )
    return clone
