"""Features that are made once and kept: how many fit, and in how many channels.

Where all channels do not fit, the strongest directions among them are kept; afterwards the
projection is folded back into the adapter's first map, which is linear, too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ..adapter import DiscriminativeAdapter
from .features import FeatureSource, NoisedExamples, batch_of, in_shards

logger = logging.getLogger(__name__)

SHARD = 32
"""Examples whose features are made and kept together."""

AT_ONCE = 16
"""Of those, how many are on the model's device together."""

LARGEST = 6e4
"""Largest feature that is kept as float16."""

CHANNELS = 256
"""Channels that are kept where all do not fit."""

MEMORY, DISK = 0.5, 0.8
"""Shares of what is free that kept features may take."""

LEAST = 512
"""Examples that must fit; with fewer, features are made in every step."""


@dataclass(frozen=True)
class Plan:
    """What is kept.

    Attributes:
        count: examples; 0 makes features in every step.
        channels: how many are kept; None for all.
    """

    count: int
    channels: int | None = None


def room(folder: Path, free: float) -> float:
    """Bytes that kept features may take in main memory, and on the disk of a folder.

    Args:
        folder: where they would lie.
        free: bytes of main memory that are.
    """
    return min(MEMORY * free, DISK * shutil.disk_usage(folder).free)


def plan(wanted: int, values: int, channels: int, memory: float) -> Plan:
    """What fits.

    Args:
        wanted: examples to keep.
        values: numbers in the features of one example.
        channels: of them.
        memory: bytes there are.
    """
    if not wanted or wanted * values * 2 <= memory:
        return Plan(wanted)
    fewer = CHANNELS if channels > CHANNELS else None
    fitting = int(memory // (values * 2 * (fewer or channels) / channels))
    count = min(wanted, fitting)
    if count < min(wanted, LEAST):
        logger.info("features of only %d examples fit: they are made in every step", fitting)
        return Plan(0)
    logger.info("features of %d examples are kept in %s channels", count, fewer or channels)
    return Plan(count, fewer)


def strongest(features: torch.Tensor, channels: int) -> torch.Tensor:
    """The directions `[K, C]` that hold most of the energy of feature maps `[N, C, h, w]`."""
    cells = features.float().movedim(1, 0).flatten(1)
    _, directions = torch.linalg.eigh(cells @ cells.T / cells.shape[1])
    return directions[:, -channels:].T.contiguous()


def folded(adapter: DiscriminativeAdapter, projection: torch.Tensor) -> DiscriminativeAdapter:
    """The adapter of whole features that does what one of projected features does.

    Args:
        adapter: reads `K` channels.
        projection: `[K, C]`.
    """
    config = replace(adapter.config, in_channels=projection.shape[1])
    whole = DiscriminativeAdapter(config)
    tensors = adapter.state_dict()
    weight = tensors["input_proj.weight"]
    tensors["input_proj.weight"] = torch.einsum("okpq,kc->ocpq", weight, projection.to(weight))
    whole.load_state_dict(tensors)
    return whole


class KeptExamples(Dataset):
    """Examples with their features in half precision in main memory.

    Args:
        shards: what :func:`keep` gave.
        examples: what they were made of: their boxes are taken from there.
    """

    def __init__(
        self, shards: Sequence[Mapping[str, torch.Tensor]], examples: NoisedExamples
    ) -> None:
        self._shards, self._examples = shards, examples

    def __len__(self) -> int:
        return sum(len(shard["levels"]) for shard in self._shards)

    def __getitem__(self, index: int) -> tuple:
        shard, row = self._shards[index // SHARD], index % SHARD
        boxed, _ = self._examples.boxed(index)
        return shard["features"][row].float(), shard["levels"][row], shard["texts"][row], boxed


def keep(
    source: FeatureSource,
    tap: str,
    examples: NoisedExamples,
    folder: Path,
    projection: torch.Tensor | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, torch.Tensor]]:
    """Read examples, or take up what the folder holds of them.

    Args:
        source: the model.
        tap: where to read.
        examples: what to read.
        folder: a file for each :data:`SHARD` examples goes there.
        projection: `[K, C]`, of channels; None keeps them all.
        progress: called with the number of examples there are; may raise to stop.

    Returns:
        By shard `features` `[n, P, C, h, w]` float16 or bfloat16, `levels` `[n]`, `texts`
        `[n, 3, D]` float32.
    """

    def make(indices: range) -> dict[str, torch.Tensor]:
        parts = []
        for first in range(indices.start, indices.stop, AT_ONCE):
            some = range(first, min(first + AT_ONCE, indices.stop))
            batch = batch_of(source, tap, [examples[index] for index in some])
            features = batch.features.transpose(0, 1)
            if projection is not None:
                features = _projected(features, projection.to(features.device))
            features = features.cpu()
            parts.append((features, batch.timesteps.cpu(), batch.texts.cpu()))
        features, levels, texts = (torch.cat(each) for each in zip(*parts, strict=True))
        # Some transformers have activations that half precision cannot hold.
        half = torch.float16 if features.abs().amax() < LARGEST else torch.bfloat16
        return {"features": features.to(half), "levels": levels, "texts": texts}

    return list(in_shards(folder, len(examples), SHARD, make, progress))


def _projected(features: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    return torch.einsum("kc,bpchw->bpkhw", projection, features.float())
