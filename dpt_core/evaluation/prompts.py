"""The prompts that arms are compared on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..shapes.caption import CATEGORIES, Caption, imagine, word

SPLITS = ("held-out", "tuning")
"""Prompts that figures are reported on, and those that settings are chosen on."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, with the seed that every arm draws it from.

    Attributes:
        index: its place, from 0.
        text: the prompt.
        category: what its figures are grouped by.
        seed: seed of the picture.
        caption: what the judge looks for, in the shapes world.
    """

    index: int
    text: str
    category: str
    seed: int
    caption: Caption | None = None


def shapes_prompts(split: str, count: int) -> list[Prompt]:
    """Captions of the shapes world, the three categories in turn.

    They are drawn by seeds that no training uses. Short captions, of which there are few, occur in
    training too; their pictures and seeds do not.

    Args:
        split: one of :data:`SPLITS`.
        count: how many, ≥ 1; more begin with the same ones.

    Raises:
        ValueError: no such split, or a count below 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if count < 1:
        raise ValueError(f"prompts must be at least 1; got {count}")
    prompts = []
    for index in range(count):
        rng = random.Random(f"{split}-{index}")
        caption = imagine(rng, CATEGORIES[index % len(CATEGORIES)])
        text = word(caption, rng).text
        prompts.append(Prompt(index, text, caption.category, rng.randrange(2**31), caption))
    return prompts
