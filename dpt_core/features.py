"""Tap names ↔ blocks of a UNet, and reading a feature map there.

`bottomK` is the output of down block K (after its downsampler), `mid` that of the middle block,
`upK` that of up block K (after its upsampler).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from .config import TAPS


class TapReached(Exception):
    """Ends a forward pass early: everything the adapter needs has been computed."""


def split_tap(tap: str, levels: int) -> tuple[str, int]:
    """Split a tap name into its kind (`bottom`, `mid`, `up`) and block index.

    Args:
        tap: one of :data:`~dpt_core.config.TAPS`.
        levels: number of resolution levels of the UNet (4 for SD 1.x and 2.x, 3 for SDXL).

    Raises:
        ValueError: no such tap, or the UNet has too few levels for it.
    """
    match = re.fullmatch(r"(bottom|mid|up)(\d?)", tap)
    if tap not in TAPS or match is None:
        raise ValueError(f"tap must be one of {', '.join(TAPS)}; got {tap!r}")
    kind, index = match[1], int(match[2] or 0)
    if index >= levels:
        raise ValueError(f"tap {tap!r} does not exist: this UNet has {levels} levels")
    return kind, index


def tap_channels(block_out_channels: Sequence[int], tap: str) -> int:
    """Channels of the feature map at a tap.

    Args:
        block_out_channels: the UNet's channels per level, outermost first (diffusers' name).
        tap: one of :data:`~dpt_core.config.TAPS`.
    """
    kind, index = split_tap(tap, len(block_out_channels))
    if kind == "bottom":
        return block_out_channels[index]
    return block_out_channels[-1] if kind == "mid" else block_out_channels[::-1][index]


class FeatureTap:
    """Context manager that reads the feature map of a diffusers `UNet2DConditionModel`.

    Args:
        unet: the UNet; its forward pass is watched, nothing about it changes.
        tap: one of :data:`~dpt_core.config.TAPS`.
        stop: raise :class:`TapReached` at the tap instead of computing the rest.
        then: called with the feature map of every pass, before the rest is computed.

    Attributes:
        features: `[B, C, h, w]` of the latest forward pass, or None before one.
    """

    def __init__(
        self,
        unet: nn.Module,
        tap: str,
        *,
        stop: bool = False,
        then: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        kind, index = split_tap(tap, len(unet.config.block_out_channels))
        blocks = {"bottom": unet.down_blocks, "mid": [unet.mid_block], "up": unet.up_blocks}
        self._block = blocks[kind][index]
        self._stop, self._then = stop, then
        self.features: torch.Tensor | None = None

    def __enter__(self) -> FeatureTap:
        self._hook = self._block.register_forward_hook(self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._hook.remove()
        return kind is TapReached

    def _read(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.features = output[0] if isinstance(output, tuple) else output
        if self._then:
            self._then(self.features)
        if self._stop:
            raise TapReached


def read_features(unet: nn.Module, tap: str, forward: Callable[[], Any]) -> torch.Tensor:
    """Run `forward` (a pass of `unet`) up to the tap and return the feature map `[B, C, h, w]`.

    Raises:
        ValueError: the pass ended without reaching the tap.
    """
    with FeatureTap(unet, tap, stop=True) as reached:
        forward()
    if reached.features is None:
        raise ValueError(f"the forward pass never reached tap {tap!r}")
    return reached.features
