"""Prompts of the shapes world, where whether a picture shows what they say can be computed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..png import save_png
from ..shapes.caption import CATEGORIES, OPPOSITES, Caption, imagine, word
from ..shapes.judge import judge
from ..shapes.pairs import TRAINING_PAIRS, TRAINING_SEED, pair_captions
from ..shapes.scene import compose, render
from .prompts import Prompt, Source

HELD_OUT, TUNING, FINAL, COMBINATIONS = SPLITS = ("held-out", "tuning", "final", "combinations")
"""Development looks at *held-out*, settings are chosen on *tuning*, and *final* is for the figures
that are reported: its pictures are drawn for nothing else. They are fresh draws, not unseen
captions: many stand word for word in the training pairs. *combinations* has only captions whose
combination no training pair has, see :func:`combination`."""

TRIES = 2000
"""Captions that are drawn to find one whose combination was not trained."""


def shapes_source(split: str, count: int, seeds: int = 1) -> Source:
    """Captions of the shapes world, its categories in turn.

    They are drawn by seeds that no training uses.

    Args:
        split: one of :data:`SPLITS`.
        count: how many captions, ≥ 1; more begin with the same ones.
        seeds: pictures per caption, ≥ 1, from seeds of their own; with more than one, how far they
            are apart can be told.

    Raises:
        ValueError: no such split, or a number below 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if count < 1 or seeds < 1:
        raise ValueError(f"prompts and seeds must be at least 1; got {count} and {seeds}")
    prompts: list[Prompt] = []
    for caption, rng in itertools.islice(_captions(split), count):
        text, first = word(caption, rng).text, rng.randrange(2**31)
        for seed in [first, *(rng.randrange(2**31) for _ in range(seeds - 1))]:
            prompts.append(Prompt(len(prompts), text, caption.category, seed, caption))
    about = {"source": "shapes", "split": split, "count": count, "seeds": seeds}
    return Source(prompts, about, judged=True)


def combination(caption: Caption) -> tuple[Any, ...]:
    """What a caption puts together: its things (number, colour, shape and stated size) and their
    relation, whatever the order and the wording. "A right of b" is "b left of a"."""
    things = tuple((m.count, m.colour, m.shape, m.size or "") for m in caption.mentions)
    relation = caption.relation
    if relation in ("right", "below"):
        things, relation = things[::-1], OPPOSITES[relation]
    return (relation, *things) if relation else (None, *sorted(things))


@cache
def trained_combinations() -> frozenset[tuple[Any, ...]]:
    """Combinations of all captions in the demo model's training pairs, the hard negatives' too:
    the model is trained on their pictures as well. Takes some seconds."""
    found = set()
    for index in range(TRAINING_PAIRS):
        found |= set(map(combination, pair_captions(TRAINING_SEED, index)))
    return frozenset(found)


@cache
def untrained_categories() -> tuple[str, ...]:
    """Categories where some combination was not trained. In 20480 pairs every relation of two
    things occurs."""
    rng = random.Random("untrained")
    return tuple(name for name in CATEGORIES if _untrained(rng, name) is not None)


def shapes_verdict(picture: np.ndarray, prompt: Prompt) -> dict[str, Any]:
    """Whether a prompt's caption holds, what fails, and whether a shape or colour is malformed:
    something in the picture that is no known shape, or of no known colour."""
    verdict = judge(picture, prompt.caption)
    malformed = any(thing.shape is None or thing.colour is None for thing in verdict.found)
    return {
        "holds": verdict.holds, "failures": list(verdict.failures), "malformed": malformed,
    }  # fmt: skip


def rendered_scenes(folder: Path, prompts: Sequence[Prompt]) -> list[Path]:
    """A right picture of every prompt, rendered: what pictures should look like.

    Args:
        folder: where they are kept.
        prompts: of the shapes world.
    """
    files = []
    for prompt in prompts:
        files.append(folder / f"{prompt.index:05d}.png")
        if not files[-1].exists():
            scene = compose(prompt.caption, random.Random(f"rendered-{prompt.seed}"))
            save_png(render(scene), files[-1], {"prompt": prompt.text})
    return files


def _captions(split: str) -> Iterator[tuple[Caption, random.Random]]:
    """Captions without end, each with what its wording and seeds are drawn from."""
    categories = untrained_categories() if split == COMBINATIONS else CATEGORIES
    for index in itertools.count():
        rng, category = random.Random(f"{split}-{index}"), categories[index % len(categories)]
        if split != COMBINATIONS:
            yield imagine(rng, category), rng
        elif (caption := _untrained(rng, category)) is not None:
            yield caption, rng


def _untrained(rng: random.Random, category: str) -> Caption | None:
    """A caption whose combination was not trained, or None where none is found."""
    drawn = (imagine(rng, category) for _ in range(TRIES))
    trained = trained_combinations()
    return next((caption for caption in drawn if combination(caption) not in trained), None)
