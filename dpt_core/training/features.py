"""What an adapter is trained on, from any frozen model: features of noised latents with texts.

:class:`FeatureSource` is all that training needs of a model; whoever runs models implements it.
Per example six passes share noise and level: five of matching
(:data:`~dpt_core.losses.contrastive.PAIRS`) and, where there are boxes, one with a phrase.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from ..files import write_tensors
from .backbone import LEVELS
from .data.examples import GroundingExample, MatchingExample
from .data.rows import CaptionedPictures, GroundingRows, MatchingRows
from .discrimination import AdapterBatch

IMAGES = (0, 0, 0, 1, 2)
TEXTS = (0, 1, 2, 0, 0)
"""Picture and text of each pass of :data:`~dpt_core.losses.contrastive.PAIRS`: 0 its own, 1 the
hard negative, 2 the random one."""

OTHERS = 4
"""Further negative texts of an example."""


class FeatureSource(Protocol):
    """A frozen model, as training sees it.

    Attributes:
        family, text: as in :class:`~dpt_core.config.AdapterConfig`.
        device: where features come from, and the adapter is trained.
    """

    family: str
    text: str
    device: torch.device

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels, in order of computation."""
        ...

    def read(
        self,
        taps: Sequence[str],
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
    ) -> dict[str, torch.Tensor]:
        """Features of one pass that ends at the last of the taps, without gradient.

        Args:
            taps: where to read.
            clean: `[R, ...]` latents.
            noise: like them, of unit variance.
            levels: `[R]` noise levels in [0, 1000).
            texts: R texts, one a row, that the model attends to.

        Returns:
            By tap `[R, C, h, w]`, on the source's device.
        """
        ...

    def text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Text vectors y `[R, D]` float32, on the source's device."""
        ...


class Example(NamedTuple):
    """One example with its noise.

    Attributes:
        matching: three images, as latents, and three texts.
        grounding: a phrase with its boxes, None where the data has none.
        boxed: name of the picture that the phrase belongs to.
        noise: like a latent.
        level: in [0, 1000).
        others: further texts that do not hold for the first image; the same number for all.
    """

    matching: MatchingExample
    grounding: GroundingExample | None
    boxed: str
    noise: torch.Tensor
    level: int
    others: tuple[str, ...] = ()


class NoisedExamples(Dataset[Example]):
    """Examples without end: each comes again with other negatives, noise and level.

    Everything random in example n is drawn from the seed and n alone.

    Args:
        data: rows and latents.
        seed: of negatives, noise and levels.
        level: the level of all examples; None draws each in [0, 1000).
        count: how many there are.
        lean: towards low levels, which are 1000·u^lean of a uniform u; 1 as published.
    """

    def __init__(
        self,
        data: CaptionedPictures,
        seed: int,
        count: int,
        level: int | None = None,
        lean: float = 1.0,
    ) -> None:
        self._data, self._seed, self._count = data, seed, count
        self._level, self._lean = level, lean

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        data, epoch = self._data, index // len(self._data.matching)
        matching = MatchingRows(data.matching, data.images, seed=self._seed + epoch)
        rng = random.Random(f"{self._seed}/noise/{index}")
        example = matching[index % len(matching)]
        own = example.images[0]
        noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(rng.getrandbits(63)))
        level = int(LEVELS * rng.random() ** self._lean) if self._level is None else self._level
        others = self._others(example, rng)
        return Example(example, *self.boxed(index), noise, level, others)

    def _others(self, example: MatchingExample, rng: random.Random) -> tuple[str, ...]:
        """Texts that differ from the caption in one thing; random captions where there are few."""
        if not self._data.others:
            return ()
        own, *_ = example.captions
        found = list(self._data.others.get(own, ()))
        rng.shuffle(found)
        while len(found) < OTHERS:
            found.append(rng.choice(self._data.matching).caption)
        return tuple(found[:OTHERS])

    def boxed(self, index: int) -> tuple[GroundingExample | None, str]:
        """The phrase with its boxes of an example, and the name of its picture."""
        rows = self._data.grounding
        if not rows:
            return None, ""
        # Rows of one picture stand together: go through them in another order.
        place = random.Random(f"{self._seed}/boxes/{index}").randrange(len(rows))
        return GroundingRows(rows, self._data.images)[place], rows[place].image


def read_batch(
    source: FeatureSource, taps: Sequence[str], examples: Sequence[Example]
) -> dict[str, torch.Tensor]:
    """Features of all passes of some examples, `[6, B, C, h, w]` by tap; 5 where none has boxes."""
    own = torch.stack([each.matching.images for each in examples], dim=1)  # [3, B, ...]
    passes = [own[image] for image in IMAGES]
    texts = [each.matching.captions[text] for text in TEXTS for each in examples]
    if examples[0].grounding is not None:
        passes.append(torch.stack([each.grounding.image for each in examples]))
        texts += [each.grounding.caption for each in examples]
    count = len(passes)
    noise = torch.stack([each.noise for each in examples])
    levels = torch.tensor([each.level for each in examples])
    found = source.read(
        taps,
        torch.cat(passes),
        noise.repeat(count, *[1] * (noise.ndim - 1)),
        levels.repeat(count),
        texts,
    )
    return {tap: features.unflatten(0, (count, len(examples))) for tap, features in found.items()}


def read_texts(source: FeatureSource, examples: Sequence[Example]) -> torch.Tensor:
    """Text vectors `[B, 3 + K, D]` of examples: own, hard negative, random, the others."""
    texts = [text for each in examples for text in (*each.matching.captions, *each.others)]
    return source.text_vectors(texts).unflatten(0, (len(examples), -1))


def batch_of(source: FeatureSource, tap: str, examples: Sequence[Example]) -> AdapterBatch:
    """A batch, read from the model now."""
    return AdapterBatch(
        read_batch(source, [tap], examples)[tap],
        torch.tensor([each.level for each in examples], device=source.device),
        read_texts(source, examples),
        [each.grounding for each in examples if each.grounding is not None],
    )


def in_shards(
    folder: Path,
    count: int,
    size: int,
    make: Callable[[range], Mapping[str, torch.Tensor]],
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors of items 0 to `count`, a file for each `size` of them; what is there is not made."""
    for first in range(0, count, size):
        indices = range(first, min(first + size, count))
        path = folder / f"{first:07d}.safetensors"
        if not path.exists():
            write_tensors(path, make(indices))
        yield load_file(path)
        progress(indices.stop)
