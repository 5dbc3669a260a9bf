"""The host's UNet: where its taps are and how to stop a forward pass there.

Output block patches are called with what diffusers calls the previous up block's output, before
anything else touches it; input block patches with the output of a down block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import comfy.supported_models
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn

from ....dpt_core.backbones.base import Reader
from ....dpt_core.backbones.checks import check_text
from ....dpt_core.backbones.stable_diffusion import split_tap, unet_taps
from ..calls import ModelCall

GRADIENT_MEMORY = 3.0
"""Memory of a gradient pass to the tap over the host's estimate for a plain pass of its rows."""


class UNetBackbone:
    """Stable Diffusion 1.x, 2.x and SDXL; see :class:`~nodes.host.backbones.base.HostBackbone`.

    Args:
        model: the host's BaseModel.
    """

    family = "unet"
    texts = ("eos_hidden", "pooled")

    def __init__(self, model: Any) -> None:
        self._model, self._unet = model, model.diffusion_model
        self.network = self._unet

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels."""
        unet = self._unet
        return unet_taps([unet.model_channels * mult for mult in unet.channel_mult])

    @contextmanager
    def tapped(self, tap: str, call: ModelCall, reader: Reader) -> Iterator[ModelCall]:
        """Give the call to run so that its features at a tap go to `reader`.

        Residuals of skip connections move from the control into a patch: the host adds them in
        place, which autograd cannot undo. They are used up by the pass.
        """
        unet, control = self._unet, call.inputs.get("control")
        kind, index = split_tap(tap, len(unet.channel_mult))
        blocks = [count + 1 for count in unet.num_res_blocks]  # a level's blocks, with sampling
        residuals = list((control or {}).get("output", ()))
        if control:
            call = replace(call, inputs={**call.inputs, "control": {**control, "output": []}})
        if kind == "bottom":
            last = sum(blocks) - 1  # the deepest level has no downsampler
            block = min(sum(blocks[: index + 1]), last)
            yield replace(call, options=_with_input_patch(call.options, block, reader))
        elif kind == "up" and index == len(blocks) - 1:
            hook = unet.out.register_forward_pre_hook(lambda module, args: (reader(args[0]),))
            try:
                options = _with_output_patch(call.options, None, reader, residuals)
                yield replace(call, options=options)
            finally:
                hook.remove()
        else:
            block = 0 if kind == "mid" else sum(blocks[::-1][: index + 1])
            options = _with_output_patch(call.options, block, reader, residuals)
            yield replace(call, options=options)

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """Residual and transformer blocks."""
        parts = (ResBlock, BasicTransformerBlock)
        return [part for part in self._unet.modules() if isinstance(part, parts)]

    def saved_bytes(
        self, tap: str, shape: Sequence[int], references: Sequence[Sequence[int]] = ()
    ) -> float:
        """By the host's estimate for a plain pass."""
        return self._model.memory_required([1, *shape[1:]]) * GRADIENT_MEMORY

    def from_pooled(self, source: str, pooled: torch.Tensor | None) -> torch.Tensor | None:
        """On SD 1.x the pooled output is the state at the end of the text, unprojected."""
        sd15 = isinstance(self._model.model_config, comfy.supported_models.SD15)
        return pooled if source == "pooled" or (source == "eos_hidden" and sd15) else None

    def check_text(self, source: str) -> None:
        """Both vectors of CLIP fit."""
        check_text(self.family, self.texts, source)


def _with_input_patch(options: dict[str, Any], block: int, reader: Reader) -> dict[str, Any]:
    def patch(h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        return reader(h) if options["block"] == ("input", block) else h

    return _with_first_patch(options, "input_block_patch", patch)


def _with_output_patch(
    options: dict[str, Any], block: int | None, reader: Reader, residuals: list
) -> dict[str, Any]:
    def patch(
        h: torch.Tensor, skip: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = residuals.pop() if residuals else None
        if residual is not None:
            skip = skip + residual
        return (reader(h) if options["block"] == ("output", block) else h), skip

    return _with_first_patch(options, "output_block_patch", patch)


def _with_first_patch(options: dict[str, Any], name: str, patch: Callable) -> dict[str, Any]:
    """Copy of transformer options with a patch before those of other nodes."""
    patches = options.get("patches", {})
    return {**options, "patches": {**patches, name: [patch, *patches.get(name, [])]}}
