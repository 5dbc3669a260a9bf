"""Hard negatives of a caption: sentences that differ from it in one thing and mean something else.

What is changed is found by the grammar of :mod:`.phrases`: attributes are swapped between things, a
relation is turned, a count changed, a thing replaced by its like, an attribute by another. The
word lists are those of :mod:`.english.likes`. Training draws on them where a data set brings none
of its own (arXiv 2403.04321 took a published table of similar captions instead).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations

from .english.likes import (
    COMMON_COLOURS,
    LIKES,
    OPPOSITES,
    QUALITY_OPPOSITES,
    SIZE_OPPOSITES,
    TURNED,
)
from .english.nouns import is_plural, plural, singular
from .english.words import NUMBER_NAMES
from .phrases import Attribute, Parts, Phrase, Relation, Span, put, take_apart

LIMIT = 8
"""Hard negatives of a caption."""

MOST = 4
"""Things that a changed count adds up to at most, unless the caption has more."""

Change = tuple[tuple[Span, str], ...]


def hard_negatives(caption: str, limit: int = LIMIT, seed: int = 0) -> list[str]:
    """Sentences that differ from a caption in one thing and mean something else.

    Args:
        caption: an English description of a picture.
        limit: give at most so many, ≥ 0. Kinds of change take turns, swaps of attributes and turned
            relations first.
        seed: which of several possible changes; the same caption and seed give the same sentences.

    Returns:
        Distinct sentences, best first; empty where the grammar finds nothing to change.
    """
    parts = take_apart(caption)
    rng = random.Random(f"{seed} {caption}")
    meant, found = meaning(parts), []
    kinds = [list(each(parts, rng)) for each in CHANGES]
    for turn in range(max(map(len, kinds), default=0)):
        for changes in kinds:
            if turn < len(changes) and len(found) < limit:
                sentence = put(caption, changes[turn])
                if sentence not in (caption, *found) and meaning(take_apart(sentence)) != meant:
                    found.append(sentence)
    return found


def meaning(parts: Parts) -> tuple:
    """What a prompt says, whatever the order of its things: two that mean the same are equal."""

    def thing(phrase: Phrase) -> tuple:
        attributes = sorted((each.kind, each.text) for each in phrase.attributes)
        return phrase.thing, phrase.count or 0, phrase.plural, phrase.denied, *attributes

    relations = []
    for relation in parts.relations:
        ends = thing(parts.phrases[relation.subject]), thing(parts.phrases[relation.object])
        kind = relation.text if relation.kind == "other" else relation.kind
        if kind in ("right", "below", "behind"):
            kind, ends = OPPOSITES[kind], ends[::-1]
        relations.append((kind, *(sorted(ends) if kind == "next to" else ends)))
    return tuple(sorted(map(thing, parts.phrases))), tuple(sorted(relations, key=repr))


def swapped_attributes(parts: Parts, rng: random.Random) -> Iterator[Change]:
    """Attributes of one kind change places between two things."""
    related = {(each.subject, each.object) for each in parts.relations}
    for (i, one), (j, other) in _shuffled(list(combinations(enumerate(parts.phrases), 2)), rng):
        if one.thing == other.thing and (i, j) not in related:
            continue  # "a red and a blue ball": the same the other way round
        for first, second in _pairs(one, other):
            mine = {each.text for each in one.attributes if each is not first}
            theirs = {each.text for each in other.attributes if each is not second}
            if first.text in theirs or second.text in mine or first.text == second.text:
                continue
            yield (first.span, second.text), (second.span, first.text)
            break


def turned_relation(parts: Parts, rng: random.Random) -> Iterator[Change]:
    """A relation says the contrary: left for right, on top of for under."""
    for relation in _shuffled(list(parts.relations), rng):
        words = turned(relation)
        # The same words relate several things: "with a red lid and a handle".
        shared = sum(each.span == relation.span for each in parts.relations) > 1
        if words and not shared:
            yield ((relation.span, words),)


def turned(relation: Relation) -> str | None:
    """The words of the contrary relation, or None where there is none that reads well."""
    if relation.text in TURNED:
        return TURNED[relation.text]
    if relation.kind in ("left", "right"):
        return relation.text.replace(relation.kind, OPPOSITES[relation.kind])
    return None


def changed_count(parts: Parts, rng: random.Random) -> Iterator[Change]:
    """Another number of things, where the caption says a number above one."""
    total = sum(phrase.count or 0 for phrase in parts.phrases)
    for phrase in _shuffled([each for each in parts.phrases if (each.count or 0) > 1], rng):
        word = parts.words(phrase.number).lower() if phrase.number else ""
        if " " in word or not phrase.plural:  # "a pair of", "two fish"
            continue
        spare = max(MOST, total) - total + phrase.count
        counts = [count for count in range(2, spare + 1) if count != phrase.count]
        alone = _alone(parts, phrase)
        counts = counts or ([] if alone else [phrase.count + 1])
        for count in _shuffled(counts, rng):
            if count in NUMBER_NAMES:
                yield ((phrase.number, _number(count, word)),)
        if not counts and alone:
            name = parts.words(phrase.head)
            last = name.split()[-1]
            one = name[: -len(last)] + singular(last.lower())
            yield (phrase.number, "1" if word.isdigit() else "one"), (phrase.head, one)


def replaced_thing(parts: Parts, rng: random.Random) -> Iterator[Change]:
    """A thing becomes its like: a dog a cat."""
    there = {phrase.thing.split()[-1] for phrase in parts.phrases}
    if _PRONOUNS & set(parts.text.lower().replace(".", " ").split()):
        there |= {"man", "woman", "boy", "girl", "guy", "lady"}  # "a woman and his dog"
    for phrase in _shuffled([each for each in parts.phrases if not each.denied], rng):
        name = parts.words(phrase.head)
        if len(name.split()) > 1:
            continue  # "fire truck"
        for like in _likes(name.lower(), there, rng):
            yield ((phrase.head, like),)


def replaced_attribute(parts: Parts, rng: random.Random) -> Iterator[Change]:
    """An attribute becomes another of its kind."""
    there = {each.text for phrase in parts.phrases for each in phrase.attributes}
    for phrase in _shuffled(list(parts.phrases), rng):
        for attribute in _shuffled(list(phrase.attributes), rng):
            for text in _other_values(attribute, there, rng):
                yield ((attribute.span, text),)


CHANGES = (swapped_attributes, turned_relation, changed_count, replaced_thing, replaced_attribute)


def _pairs(one: Phrase, other: Phrase) -> Iterator[tuple[Attribute, Attribute]]:
    for first in one.attributes:
        for second in other.attributes:
            if first.kind == second.kind and first.kind != "quality":
                yield first, second


def _other_values(attribute: Attribute, there: set[str], rng: random.Random) -> list[str]:
    word = attribute.text.split()[-1]
    if attribute.kind == "colour":
        colours = [each for each in COMMON_COLOURS if each not in there and each != word]
        return _shuffled(colours, rng)[:2]
    other = SIZE_OPPOSITES.get(attribute.text) or QUALITY_OPPOSITES.get(attribute.text)
    return [other] if other and other not in there else []


_PRONOUNS = {"his", "her", "he", "she", "him", "hers", "himself", "herself"}


def likes_of(name: str) -> list[str]:
    """Things that are alike enough to be taken for a thing, in its number; none for most."""
    group = next((each for each in LIKES if name in each or singular(name) in each), ())
    likes = [each for each in group if each not in (name, singular(name))]
    return [plural(each) if is_plural(name) and not is_plural(each) else each for each in likes]


def _likes(name: str, there: set[str], rng: random.Random) -> list[str]:
    """Things like a thing, none of which the caption names: two at most."""
    likes = [each for each in likes_of(name) if singular(each) not in there]
    return _shuffled(likes, rng)[:2]


def _alone(parts: Parts, phrase: Phrase) -> bool:
    """Whether no verb follows a phrase that would have to agree with it."""
    after = parts.text[phrase.span.end :].split()
    before = parts.text[: phrase.span.start].lower().split()
    joint = not after or after[0].lower().strip(",.") in ("", "and", "with", "on", "in", "next")
    return (
        joint
        and not ({"are", "the", "these", "those"} & set(before[-2:]))
        and not any(
            word.lower() in ("are", "were", "have", "they", "their", "them") for word in after
        )
    )


def _number(count: int, like: str) -> str:
    return str(count) if like.isdigit() else NUMBER_NAMES[count]


def _shuffled(values: Sequence, rng: random.Random) -> list:
    return rng.sample(values, len(values))
