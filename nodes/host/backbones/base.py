"""What the pack needs to know of a denoising network in the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn

from ....dpt_core.backbones.base import Reader
from ..calls import ModelCall


class HostBackbone(Protocol):
    """A denoising network of the host.

    Attributes:
        family: stored in the adapter's config.
        texts: sources of a text vector that fit, the best first.
        network: the network itself.
    """

    family: str
    network: nn.Module
    texts: Sequence[str]

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels, in order of computation."""
        ...

    def tapped(
        self, tap: str, call: ModelCall, reader: Reader
    ) -> AbstractContextManager[ModelCall]:
        """A context that gives the call to run so that its features at a tap go to `reader`."""
        ...

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """What can be computed again on the way back, below a tap."""
        ...

    def saved_bytes(
        self, tap: str, shape: Sequence[int], references: Sequence[Sequence[int]] = ()
    ) -> float:
        """Memory of a gradient pass to a tap, of one row of a latent's `shape` `[1, C, h, w]`, with
        reference latents of the shapes `references`."""
        ...

    def from_pooled(self, source: str, pooled: torch.Tensor | None) -> torch.Tensor | None:
        """The text vector of a source, `[B, D]`, where the host's pooled output `[B, P]` holds it.

        Raises:
            ValueError: it should, but the text encoder that gives it is not loaded.
        """
        ...

    def check_text(self, source: str) -> None:
        """Refuse an adapter whose text vector the family's text encoders do not give.

        Raises:
            ValueError: names the ones that they give.
        """
        ...
