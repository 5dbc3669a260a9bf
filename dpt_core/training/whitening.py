"""Whitened training of the adapter's input, for any features.

A UNet's feature map is strongly correlated: a few directions hold most of its energy, the colours
and shapes of small things lie in faint ones. An optimiser with one step size for all then either
creeps along the faint directions or shakes the strong ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..adapter import DiscriminativeAdapter

RIDGE = 1e-3
"""Share of the mean energy added to every direction, so that empty ones are not blown up."""


class Whitened(nn.Module):
    """The parametrisation `W = W' M^(-1/2)` of a patch embedding's weights, `M = E[f fᵀ]`.

    What is trained, `W'`, is the map of the whitened patches `M^(-1/2) f`.

    Args:
        features: `[N, C, h, w]` feature maps at the tap.
        patch: side of the patches.
    """

    def __init__(self, features: torch.Tensor, patch: int = 1) -> None:
        super().__init__()
        patches = nn.functional.unfold(features.float(), patch, stride=patch)
        cells = patches.movedim(1, 0).flatten(1)
        energy, directions = torch.linalg.eigh(cells @ cells.T / cells.shape[1])
        scale = (energy.clamp(min=0) + RIDGE * energy.mean()).sqrt()
        self.register_buffer("whiten", directions / scale @ directions.T)
        self.register_buffer("colour", directions * scale @ directions.T)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self._times(weight, self.whiten)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return self._times(weight, self.colour)

    @staticmethod
    def _times(weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return (weight.flatten(1) @ matrix).view_as(weight)


@contextmanager
def whitened_input(
    adapter: DiscriminativeAdapter, features: torch.Tensor, fresh: bool = False
) -> Iterator[None]:
    """Train an adapter's `input_proj` in whitened coordinates; afterwards it is as it was, trained.

    Args:
        adapter: the adapter.
        features: `[N, C, h, w]` feature maps of about a thousand examples.
        fresh: the adapter is untrained; its first map then gives cells of unit variance.
    """
    first = adapter.input_proj
    parametrize.register_parametrization(first, "weight", Whitened(features, adapter.config.patch))
    if fresh:
        whitened = first.parametrizations.weight.original
        rows, columns = whitened.flatten(1).shape
        nn.init.orthogonal_(whitened, max(1, rows / columns) ** 0.5)
        nn.init.zeros_(first.bias)
    try:
        yield
    finally:
        parametrize.remove_parametrizations(first, "weight")
