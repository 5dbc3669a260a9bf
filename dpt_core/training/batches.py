"""Which examples a step of training sees."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from .config import LoopConfig


class Batches(Sampler[list[int]]):
    """Index batches of one process from a given micro-step on: shuffled anew each epoch.

    Args:
        length: examples in the data set.
        config: batch size and seed.
        start: first micro-step.
        rank, processes: this process among how many.
    """

    def __init__(
        self, length: int, config: LoopConfig, start: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        self._length, self._config = length, config
        self._start, self._rank, self._processes = start, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        size, epoch, order = self._config.batch_size, -1, None
        for micro in range(self._start, self._config.steps * self._config.accumulate):
            first = (micro * self._processes + self._rank) * size
            batch = []
            for position in range(first, first + size):
                if position // self._length != epoch:
                    epoch = position // self._length
                    generator = torch.Generator().manual_seed(self._config.seed + epoch)
                    order = torch.randperm(self._length, generator=generator)
                batch.append(int(order[position % self._length]))
            yield batch
