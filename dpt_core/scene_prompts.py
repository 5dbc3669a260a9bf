"""Prompts put together from word lists, with what they consist of: training material for any model.

A prompt names one to four things; it is one of three kinds in turn, as in the shapes world:
*attributes* ("a red dog and a blue car"), *relations* ("a red dog left of a blue car") and *counts*
("three red dogs").
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .english.nouns import plural
from .english.parts import begins_with_vowel
from .english.tagging import attribute_kind
from .english.words import NUMBER_NAMES, RELATIONS

KINDS = ("attributes", "relations", "counts")
MOST = 4
"""Things in a prompt; models hardly count further."""

TRIES = 50
"""Prompts that are put together to find one that was not there yet."""

THINGS = (
    "dog", "cat", "horse", "bird", "car", "bus", "boat", "chair", "table", "vase", "bowl", "cup",
    "apple", "banana", "book", "clock", "backpack", "umbrella", "ball", "hat",
)  # fmt: skip
ATTRIBUTES = ("red", "green", "blue", "yellow", "purple", "black")
PLACES = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class SceneWords:
    """What prompts are made of.

    Attributes:
        things: names in the singular, at least one.
        attributes: adjectives, at least one; "" for a thing without one.
        relations: between two things; none makes no prompts of that kind.
        most: things in a prompt, 1 to 12.

    Raises:
        ValueError: a list is empty or a number out of range.
    """

    things: tuple[str, ...] = THINGS
    attributes: tuple[str, ...] = ATTRIBUTES
    relations: tuple[str, ...] = PLACES
    most: int = MOST

    def __post_init__(self) -> None:
        for name in ("things", "attributes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must have a word at least; got an empty list")
        if not 1 <= self.most <= max(NUMBER_NAMES):
            raise ValueError(f"most must be in [1, {max(NUMBER_NAMES)}]; got {self.most}")
        if len(self.things) * len(self.attributes) < 2:
            raise ValueError("expected two different things at least: name more, or attributes")


@dataclass(frozen=True)
class ScenePrompt:
    """A prompt and what it says.

    Attributes:
        text: the prompt.
        parts: the same as data, ready for JSON: `phrases`, each with `text`, `thing`, `attributes`
            (`kind`, `text`), `count` and `span`, and `relations` (`subject`, `object`, `text`,
            `kind`); things are given by their place.
    """

    text: str
    parts: dict[str, Any]


def words_of(text: str) -> tuple[str, ...]:
    """A word list as people type it: words or sayings at commas and line ends, each once."""
    parts = (part.strip() for line in text.splitlines() for part in line.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def scene_prompts(words: SceneWords, count: int, seed: int = 0) -> list[ScenePrompt]:
    """Put prompts together, their kinds in turn.

    Args:
        words: what they are made of.
        count: how many, ≥ 1. They differ for as long as the lists give different ones.
        seed: the same words and seed give the same prompts; more begin with the same ones.

    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    kinds = [kind for kind in KINDS if _possible(kind, words)]
    rng, found, there = random.Random(f"scene prompts {seed}"), [], set()
    for place in range(count):
        for _ in range(TRIES):
            prompt = _compose(kinds[place % len(kinds)], words, rng)
            if prompt.text not in there:
                break
        there.add(prompt.text)
        found.append(prompt)
    return found


def _possible(kind: str, words: SceneWords) -> bool:
    if kind == "relations":
        return bool(words.relations) and words.most > 1
    return kind == "attributes" or words.most > 1


def _compose(kind: str, words: SceneWords, rng: random.Random) -> ScenePrompt:
    if kind == "counts":
        counts = [rng.randint(2, words.most)]
        if counts[0] < words.most and rng.random() < 0.4:
            counts.append(rng.randint(1, words.most - counts[0]))
    else:
        things = 2 if kind == "relations" else rng.randint(1, min(3, words.most))
        counts = [1] * things
    things = _different(len(counts), words, rng)
    relation = rng.choice(words.relations) if kind == "relations" else None
    return put_together(
        [(*each, number) for each, number in zip(things, counts, strict=False)], relation
    )


def put_together(
    things: Sequence[tuple[str, str, int]], relation: str | None = None
) -> ScenePrompt:
    """The prompt that names things.

    Args:
        things: thing in the singular, attribute or "", and number of each kind.
        relation: of the first to the second, in words; None for none.
    """
    phrases = [_phrase(*each) for each in things]
    if relation:
        joints = [f" {relation} "]
    else:
        joints = [", "] * (len(phrases) - 2) + [" and "] * (len(phrases) > 1)
    texts = [each["text"] for each in phrases]
    lengths = [len(a) + len(b) for a, b in zip(texts, [*joints, ""], strict=True)]
    for each, start in zip(phrases, [0, *accumulate(lengths)], strict=False):
        each["span"] = [start, start + len(each["text"])]
    text = "".join(a + b for a, b in zip(texts, [*joints, ""], strict=True))
    related = {"subject": 0, "object": 1, "text": relation, "kind": relation_kind(relation)}
    return ScenePrompt(text, {"phrases": phrases, "relations": [related] if relation else []})


def _different(count: int, words: SceneWords, rng: random.Random) -> Sequence[tuple[str, str]]:
    """Pairs of a thing and an attribute, no two the same."""
    every = len(words.things) * len(words.attributes)
    places = rng.sample(range(every), min(count, every))
    return [
        (
            words.things[place // len(words.attributes)],
            words.attributes[place % len(words.attributes)],
        )
        for place in places
    ]


def _phrase(thing: str, attribute: str, count: int) -> dict[str, Any]:
    *before, last = thing.split()
    name = " ".join([*before, last if count == 1 else plural(last)])
    described = f"{attribute} {name}".strip()
    article = "an" if begins_with_vowel(described) else "a"
    number = article if count == 1 else NUMBER_NAMES[count]
    kind = attribute_kind(attribute.split()[-1]) if attribute else ""
    return {
        "text": f"{number} {described}",
        "thing": thing,
        "attributes": [{"kind": kind, "text": attribute}] if attribute else [],
        "count": count,
    }


def relation_kind(words: str | None) -> str:
    """The kind of a relation in words; "other" for one that boxes cannot tell."""
    return next((kind for kind, every in RELATIONS.items() if words in every), "other")
