"""Captions of the shapes world: what they say, how they are worded, how they go wrong.

A caption names everything in the picture. It is one of three kinds: *attributes* ("a red circle
and a blue square"), *relations* ("a red circle left of a blue square") and *counts* ("three green
triangles").
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
SIZES = ("small", "large")
CATEGORIES = ("attributes", "relations", "counts")
MOST_THINGS = 4

RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
"""Relation → its wordings."""

OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
NUMBERS = {1: ("a", "one"), 2: ("two",), 3: ("three",), 4: ("four",)}
OPENINGS = ("", "", "", "a picture of ", "there is ", "an image with ")


@dataclass(frozen=True)
class Mention:
    """One phrase of a caption: so many things of a colour and shape.

    Attributes:
        count: how many, 1 to 4.
        colour: one of :data:`COLOURS`.
        shape: one of :data:`SHAPES`.
        size: one of :data:`SIZES`, or None where the caption does not say.
    """

    count: int
    colour: str
    shape: str
    size: str | None = None


@dataclass(frozen=True)
class Caption:
    """What a caption says.

    Attributes:
        mentions: its phrases, in order; together at most four things.
        relation: where the first mention is, seen from the second, or None.
    """

    mentions: tuple[Mention, ...]
    relation: str | None = None

    @property
    def category(self) -> str:
        """One of :data:`CATEGORIES`."""
        if self.relation:
            return "relations"
        return "counts" if any(mention.count > 1 for mention in self.mentions) else "attributes"


@dataclass(frozen=True)
class Wording:
    """A caption in words.

    Attributes:
        text: the sentence.
        spans: for each mention, the (start, end) characters of its phrase.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def phrase(mention: Mention, rng: random.Random | None = None) -> str:
    """A mention in words, "a large red circle"; without `rng` in its plainest wording."""
    numbers = NUMBERS[mention.count]
    number = rng.choice(numbers) if rng and rng.random() < 0.2 else numbers[0]
    noun = mention.shape + ("" if mention.count == 1 else _plural(mention.shape))
    return " ".join(word for word in (number, mention.size, mention.colour, noun) if word)


def word(caption: Caption, rng: random.Random | None = None) -> Wording:
    """A caption in words; without `rng` in its plainest wording."""
    opening = rng.choice(OPENINGS) if rng else ""
    phrases = [phrase(mention, rng) for mention in caption.mentions]
    if caption.relation:
        wordings = RELATIONS[caption.relation]
        joints = [f" {rng.choice(wordings) if rng else wordings[0]} "]
    else:
        joints = [", "] * (len(phrases) - 2) + [" and "] * (len(phrases) > 1)
    text, spans = opening, []
    for words, joint in zip(phrases, [*joints, ""], strict=True):
        spans.append((len(text), len(text) + len(words)))
        text += words + joint
    return Wording(text, tuple(spans))


def parse(text: str) -> Caption:
    """Read a sentence of the shapes world.

    Args:
        text: phrases of number, optional size, colour and shape, joined by commas, "and" or one
            relation.

    Raises:
        ValueError: the sentence says something else; the message names what can be said.
    """
    relations = {wording: key for key, wordings in RELATIONS.items() for wording in wordings}
    body = " ".join(text.lower().replace(",", " , ").split()).rstrip(" .")
    for opening in sorted(set(OPENINGS), key=len, reverse=True):
        body = body.removeprefix(opening)
    body = re.sub(r"^there are ", "", body)
    between = "|".join(sorted(map(re.escape, relations), key=len, reverse=True))
    found = re.findall(rf"\b({between})\b", body)
    joint = rf" (?:is |are )?(?:{between}) " if found else r" ?,(?: and)? | and "
    mentions = tuple(_mention(part, text) for part in re.split(joint, body))
    if len(found) > 1 or (found and len(mentions) != 2):
        raise _unreadable(text, "more than one relation")
    if found and any(mention.count > 1 for mention in mentions):
        raise _unreadable(text, "a relation between more than two things")
    if sum(mention.count for mention in mentions) > MOST_THINGS:
        raise _unreadable(text, f"more than {MOST_THINGS} things")
    return Caption(mentions, relations[found[0]] if found else None)


def imagine(rng: random.Random, category: str | None = None) -> Caption:
    """A random caption, of a category or of any."""
    category = category or rng.choice(CATEGORIES)
    if category == "counts":
        count = rng.choice((2, 3, 4))
        mentions = [_thing(rng, count)]
        if count < MOST_THINGS and rng.random() < 0.4:
            mentions.append(_other(rng, mentions, rng.randint(1, MOST_THINGS - count)))
            rng.shuffle(mentions)
        return Caption(tuple(mentions))
    things = 2 if category == "relations" else rng.choice((1, 2, 2, 2, 3, 3, 4))
    mentions: list[Mention] = []
    for _ in range(things):
        size = rng.choice(SIZES) if category == "attributes" and rng.random() < 0.2 else None
        mentions.append(replace(_other(rng, mentions), size=size))
    return Caption(
        tuple(mentions), rng.choice(list(RELATIONS)) if category == "relations" else None
    )


def hard_negative(caption: Caption, rng: random.Random) -> Caption:
    """A caption that differs in one way: swapped attributes, relation, count or one object."""
    first, *others = caption.mentions
    changes = [_change_object]
    if caption.relation:
        changes += [_turn_relation] * 2 + [_swap_colours]
    elif caption.category == "counts":
        changes += [_change_count] * 2
    if others and not caption.relation and any(first.colour != m.colour for m in others):
        changes += [_swap_colours] * 2
    for change in rng.sample(changes, len(changes)):
        negative = change(caption, rng)
        # A size moved to another thing may hold in the same picture: it is no difference.
        if not same(_unsized(negative), _unsized(caption)):
            return negative
    return _change_object(caption, rng)


def same(first: Caption, second: Caption) -> bool:
    """Whether two captions say the same, whatever the order of their phrases."""

    def meaning(caption: Caption) -> tuple:
        if caption.relation in ("right", "below"):
            caption = Caption(caption.mentions[::-1], OPPOSITES[caption.relation])
        if caption.relation:
            return caption.relation, caption.mentions
        return None, tuple(sorted(caption.mentions, key=repr))

    return meaning(first) == meaning(second)


def _unsized(caption: Caption) -> Caption:
    return replace(caption, mentions=tuple(replace(m, size=None) for m in caption.mentions))


def _plural(shape: str) -> str:
    return "es" if shape.endswith("s") else "s"


def _thing(rng: random.Random, count: int = 1) -> Mention:
    return Mention(count, rng.choice(COLOURS), rng.choice(SHAPES))


def _other(rng: random.Random, mentions: list[Mention], count: int = 1) -> Mention:
    """A mention of another kind than those given."""
    while True:
        mention = _thing(rng, count)
        if all((mention.colour, mention.shape) != (m.colour, m.shape) for m in mentions):
            return mention


def _change_object(caption: Caption, rng: random.Random) -> Caption:
    mentions = list(caption.mentions)
    place = rng.randrange(len(mentions))
    changed = mentions[place]
    while (changed.colour, changed.shape) in {(m.colour, m.shape) for m in mentions}:
        field, values = rng.choice((("colour", COLOURS), ("shape", SHAPES)))
        changed = replace(mentions[place], **{field: rng.choice(values)})
    mentions[place] = changed
    return replace(caption, mentions=tuple(mentions))


def _change_count(caption: Caption, rng: random.Random) -> Caption:
    mentions = list(caption.mentions)
    place = rng.randrange(len(mentions))
    spare = MOST_THINGS - sum(mention.count for mention in mentions) + mentions[place].count
    counts = [count for count in range(1, spare + 1) if count != mentions[place].count]
    if counts:
        mentions[place] = replace(mentions[place], count=rng.choice(counts))
    return replace(caption, mentions=tuple(mentions))


def _turn_relation(caption: Caption, rng: random.Random) -> Caption:
    if rng.random() < 0.5:
        return replace(caption, relation=OPPOSITES[caption.relation])
    return replace(caption, mentions=caption.mentions[::-1])


def _swap_colours(caption: Caption, rng: random.Random) -> Caption:
    mentions = list(caption.mentions)
    a, b = rng.sample(range(len(mentions)), 2)
    first, second = mentions[a], mentions[b]
    mentions[a] = replace(first, colour=second.colour)
    mentions[b] = replace(second, colour=first.colour)
    kinds = {(mention.colour, mention.shape) for mention in mentions}
    return replace(caption, mentions=tuple(mentions)) if len(kinds) == len(mentions) else caption


def _mention(words: str, text: str) -> Mention:
    numbers = {name: count for count, names in NUMBERS.items() for name in names}
    numbers |= {str(count): count for count in NUMBERS}
    shapes = {shape: shape for shape in SHAPES}
    shapes |= {shape + _plural(shape): shape for shape in SHAPES}
    match = re.fullmatch(
        rf"(?:({'|'.join(numbers)}) )?(?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) "
        rf"({'|'.join(shapes)})",
        words.strip(),
    )
    if match is None:
        raise _unreadable(text, f"{words.strip()!r}")
    return Mention(numbers.get(match[1] or "a"), match[3], shapes[match[4]], match[2])


def _unreadable(text: str, problem: str) -> ValueError:
    return ValueError(
        f"the shapes world cannot draw {text!r}: it does not understand {problem}. It knows "
        f"{', '.join(SHAPES)} in {', '.join(COLOURS)}, {' and '.join(SIZES)}, up to {MOST_THINGS} "
        'of them, as in "a red circle and a blue square", "a red circle left of a blue square" or '
        '"three green triangles"'
    )
