"""Reading a feature map of a diffusers UNet: what training still uses."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn

from .backbones.base import TapReached
from .backbones.stable_diffusion import split_tap


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
