"""A tiled sampler as other packs have it: the model sees tiles of the latent, several a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def tiled(together: int, size: int = 8) -> Callable[[Any, int], Any]:
    """The patch of a tiled sampler without overlap.

    As in packs that do this, the rows of a call go tile by tile, and of each tile chunk by chunk;
    `cond_or_uncond` and `uuids` stay those of the whole latent's call.

    Args:
        together: tiles a call; those of another shape run in a call of their own.
        size: side of a tile in latent cells; the last ones are smaller where it leaves a rest.
    """

    def patch(model: Any, batch: int) -> Any:
        model = model.clone()
        model.set_model_unet_function_wrapper(Tiles(together, size))
        return model

    return patch


class Tiles:
    """Between the host's sampling and the model."""

    def __init__(self, together: int, size: int) -> None:
        self._together, self._size = together, size

    def __call__(self, apply_model: Callable, call: dict[str, Any]) -> torch.Tensor:
        x, conditions = call["input"], call["c"]
        result = torch.zeros_like(x)
        for places in self._calls(*x.shape[-2:]):
            count = len(places)
            tiles = torch.cat([x[..., rows, columns] for rows, columns in places])
            repeated = {name: _repeat(value, len(x), count) for name, value in conditions.items()}
            denoised = apply_model(tiles, call["timestep"].repeat(count), **repeated)
            for (rows, columns), tile in zip(places, denoised.split(len(x)), strict=True):
                result[..., rows, columns] = tile
        return result

    def _calls(self, height: int, width: int) -> list[list[tuple[slice, slice]]]:
        """Places of the tiles by call; those of one shape run together."""
        by_shape: dict[tuple[int, int], list] = {}
        for top in range(0, height, self._size):
            for left in range(0, width, self._size):
                bottom, right = min(top + self._size, height), min(left + self._size, width)
                shape = bottom - top, right - left
                by_shape.setdefault(shape, []).append((slice(top, bottom), slice(left, right)))
        step = self._together
        return [
            places[start : start + step]
            for places in by_shape.values()
            for start in range(0, len(places), step)
        ]


def _repeat(value: Any, rows: int, count: int) -> Any:
    """What a call of so many rows carries, for `count` tiles."""
    if torch.is_tensor(value) and value.ndim and value.shape[0] == rows:
        return value.repeat(count, *[1] * (value.ndim - 1))
    return value
