"""The host's UNet: where its taps are and how to stop a forward pass there.

This is the only file that knows the inside of `UNetModel`. Output block patches are called with
what diffusers calls the previous up block's output, before anything else touches it; input block
patches with the output of a down block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...dpt_core.backbones.base import check_taps
from ...dpt_core.backbones.stable_diffusion import split_tap, unet_taps
from ...dpt_core.config import AdapterConfig

Reader = Callable[[torch.Tensor], torch.Tensor]
"""Called with the tapped feature map `[B, C, h, w]`; returns what the forward pass goes on with."""

COMPILE_KEY = "torch.compile"
"""Key of the wrapper that the host's TorchCompileModel node leaves on a model."""


def check_backbone(model: Any, config: AdapterConfig) -> None:
    """Check that an adapter can read a wired model.

    Args:
        model: the host's ModelPatcher.
        config: the adapter's config.

    Raises:
        ValueError: no diffusion UNet, another tap width, or a compiled model.
    """
    unet = model.get_model_object("diffusion_model")
    parts = [*unet.modules(), *model.object_patches.values()]
    compiled = any(hasattr(part, "_orig_mod") for part in parts) or any(
        COMPILE_KEY in wrappers for wrappers in model.wrappers.values()
    )
    if compiled:
        raise ValueError(
            "DPT cannot differentiate a compiled model: remove the TorchCompileModel node (or "
            "whatever compiles the model) in front of this one"
        )
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"DPT adapters read the UNet of Stable Diffusion 1.x, 2.x or SDXL; the wired model is "
            f"a {type(unet).__name__}. Wire a model of the family the adapter was trained on"
        )
    taps = unet_taps([unet.model_channels * mult for mult in unet.channel_mult])
    check_taps(taps, config.tap, config.in_channels)


@contextmanager
def tapped(
    unet: UNetModel,
    tap: str,
    transformer_options: dict[str, Any],
    control: dict[str, list] | None,
    reader: Reader,
) -> Iterator[tuple[dict[str, Any], dict[str, list] | None]]:
    """Give options and control under which a pass hands its tapped features to `reader`.

    Args:
        unet: the host's UNet.
        tap: one of :data:`dpt_core.config.TAPS`.
        transformer_options: the options of the pass; they are not changed.
        control: ControlNet residuals of the pass, or None; a list is used up by the pass.
        reader: see :data:`Reader`; it may raise to end the pass early.

    Yields:
        Options and control to run the pass with. Residuals of skip connections move from the
        control into a patch: the host adds them in place, which autograd cannot undo.
    """
    kind, index = split_tap(tap, len(unet.channel_mult))
    blocks = [count + 1 for count in unet.num_res_blocks]  # a level's blocks, sampling included
    residuals = list((control or {}).get("output", ()))
    control = {**control, "output": []} if control else control
    if kind == "bottom":
        last = sum(blocks) - 1  # the deepest level has no downsampler
        block = min(sum(blocks[: index + 1]), last)
        yield _with_input_patch(transformer_options, block, reader), control
    elif kind == "up" and index == len(blocks) - 1:
        hook = unet.out.register_forward_pre_hook(lambda module, args: (reader(args[0]),))
        try:
            yield _with_output_patch(transformer_options, None, reader, residuals), control
        finally:
            hook.remove()
    else:
        block = 0 if kind == "mid" else sum(blocks[::-1][: index + 1])
        yield _with_output_patch(transformer_options, block, reader, residuals), control


def mutates(transformer_options: dict[str, Any]) -> bool:
    """Whether patches of other nodes may change feature maps in place (FreeU does)."""
    return any(
        patches
        for name, patches in transformer_options.get("patches", {}).items()
        if "block" in name
    )


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
