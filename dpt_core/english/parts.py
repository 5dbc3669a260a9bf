"""What a prompt consists of: phrases, attributes, relations, and changed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

KINDS = ("colour", "size", "material", "pattern", "quality")
"""Kinds of attributes."""


class Span(NamedTuple):
    """Characters of the prompt, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class Attribute:
    """What a thing is like.

    Attributes:
        text: in lower case, as in "light blue".
        kind: one of :data:`KINDS`.
        span: where it stands; outside its phrase in "the wall is red".
    """

    text: str
    kind: str
    span: Span


@dataclass(frozen=True)
class Phrase:
    """One thing, or several of a kind.

    Attributes:
        thing: its name in lower case and in the singular, "tennis racket".
        attributes: in the order of the words.
        count: how many where a number or an article says so, else None.
        plural: whether the name stands in the plural.
        span: all of the phrase, with its article.
        head: its name.
        number: where its number or article stands, or None.
        denied: the prompt says that it is not there.
    """

    thing: str
    attributes: tuple[Attribute, ...]
    count: int | None
    plural: bool
    span: Span
    head: Span
    number: Span | None = None
    denied: bool = False

    def texts(self, kind: str) -> tuple[str, ...]:
        """Its attributes of a kind, in words."""
        return tuple(each.text for each in self.attributes if each.kind == kind)


@dataclass(frozen=True)
class Relation:
    """How one thing is to another.

    Attributes:
        subject, object: places in :attr:`Parts.phrases`.
        kind: a key of :data:`~dpt_core.english.words.RELATIONS`, or "other".
        text: its words, in lower case.
        span: where they stand.
    """

    subject: int
    object: int
    kind: str
    text: str
    span: Span


@dataclass(frozen=True)
class Parts:
    """A prompt taken apart.

    Attributes:
        text: the prompt.
        phrases, relations: in the order of the words.
        rest: what was not understood, or says what no picture part shows.
    """

    text: str
    phrases: tuple[Phrase, ...]
    relations: tuple[Relation, ...]
    rest: tuple[Span, ...] = ()

    def words(self, span: Span) -> str:
        """What stands at a place of the prompt."""
        return self.text[span.start : span.end]


def put(text: str, changes: Sequence[tuple[Span, str]]) -> str:
    """A prompt with words put in the places of others, its "a" and "an" set right after them.

    Args:
        changes: places that do not overlap, in any order, and what comes there instead.
    """
    for span, words in sorted(changes, reverse=True):
        before = text[: span.start]
        article = before.rstrip()
        if (
            words[:1].islower()
            and article.lower().endswith((" a", " an"))
            or article.lower()
            in (
                "a",
                "an",
            )
        ):
            start = len(article) - (2 if article.lower().endswith("an") else 1)
            right = "an" if begins_with_vowel(words) else "a"
            right = right.capitalize() if article[start].isupper() else right
            before = article[:start] + right + before[len(article) :]
        if words and text[span.start : span.start + 1].isupper() and not before.strip():
            words = words[0].upper() + words[1:]
        text = before + words + text[span.end :]
    return text


def begins_with_vowel(words: str) -> bool:
    """Whether "an" stands before these words, by their letters and a few exceptions."""
    word = words.lower()
    return word.startswith(tuple("aeiou")) and not word.startswith(("one", "uni", "use", "eu"))
