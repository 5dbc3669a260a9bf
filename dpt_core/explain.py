"""Which part of a prompt holds in a picture.

A prompt is taken apart (:mod:`.phrases`). Each phrase is searched by the grounding queries, under
its own words and with another thing in place of its own; colours are read off the pixels in the
boxes; for relations, sizes and the like the score of the whole sentence is compared with that of
the sentence with the part swapped. Everything is read at several noise levels. What was read turns
into ✓ and ✗ by thresholds that were fitted in the shapes world, where a judge knows the truth:
`dpt evaluate explain` says how well they do. For other models they are a start.

Reading is not this module's business: :func:`questions` says what to read, whoever reads it gives
the :class:`Evidence` to :func:`explain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .colour_names import base_colour, colour_share
from .english.likes import QUALITY_OPPOSITES, SIZE_OPPOSITES
from .explanation import Checked, Explanation
from .grounding import Grounding
from .locations import Location, locate
from .negatives import likes_of, turned
from .phrases import Attribute, Parts, Phrase, Relation, Span, put

LEVELS = (50, 200, 300, 600)
"""Noise levels at which phrases are searched."""

OTHERS_AT = 2
"""Place of the level at which phrases with another thing are searched too."""

MOST_OTHERS = 3
"""Phrases with another thing, per phrase."""

SENTENCE_LEVELS = (300, 550)
"""Noise levels at which sentences are scored."""

FOUND = 0.4
"""Mean confidence over the levels from which a box is a thing."""

COLOURED = 0.3
"""Share of a box's middle that has a colour, from which the thing in it has it."""

APART = 0.1
"""How far two things are apart, in sides of the picture, where one is left of or above another."""

SCORED = 0.1
"""Difference between the scores of the prompt and of the swapped sentence that says something."""


class Questions(NamedTuple):
    """What is to be read of a picture.

    Attributes:
        phrases: to search at :data:`LEVELS`; all pictures and phrases share each level's noise.
        others: the same with another thing in its place, to search at one level only.
        sentences: to score at :data:`SENTENCE_LEVELS`: the prompt, then the prompt with a part
            swapped; empty where nothing is swapped.
    """

    phrases: tuple[str, ...]
    others: tuple[str, ...]
    sentences: tuple[str, ...]

    def levels(self, phrase: str) -> tuple[int, ...]:
        """At which levels a phrase is searched."""
        return LEVELS if phrase in self.phrases else (LEVELS[OTHERS_AT],)


class Evidence(NamedTuple):
    """What was read of one picture.

    Attributes:
        picture: `[H, W, 3]` uint8.
        boxes: phrase → a :class:`~dpt_core.grounding.Grounding` for each of its levels, boxes in
            pixels.
        scores: sentence → a score for each level.
    """

    picture: np.ndarray
    boxes: Mapping[str, Sequence[Grounding]]
    scores: Mapping[str, Sequence[float]]


def questions(parts: Parts) -> Questions:
    """What has to be read to explain a prompt."""
    phrases = dict.fromkeys(parts.words(each.span) for each in parts.phrases if not each.denied)
    swapped = [*filter(None, map(lambda each: _turned(parts, each), parts.relations))]
    for phrase in parts.phrases:
        swapped += filter(None, (_other(parts, each) for each in phrase.attributes))
    others = {each: None for phrase in parts.phrases for each in _others(parts, phrase)}
    others = tuple(each for each in others if each not in phrases)
    return Questions(
        tuple(phrases), others, (parts.text, *dict.fromkeys(swapped)) if swapped else ()
    )


def explain(parts: Parts, evidence: Evidence) -> Explanation:
    """Tell for each part of a prompt whether a picture shows it.

    Args:
        parts: the prompt, taken apart.
        evidence: what was read for its :func:`questions`; what is missing cannot be told.
    """
    found = _Found(parts, evidence)
    checked = [each for place in range(len(parts.phrases)) for each in found.phrase(place)]
    checked += [found.relation(each) for each in parts.relations]
    checked += [Checked("rest", parts.words(span), span) for span in parts.rest]
    return Explanation(parts.text, tuple(checked))


class _Found:
    """What is in a picture, and what that says of the parts of a prompt."""

    def __init__(self, parts: Parts, evidence: Evidence) -> None:
        self.parts, self.evidence = parts, evidence
        self.words = [parts.words(each.span) for each in parts.phrases]
        rivals = [
            [evidence.boxes[other] for other in _others(parts, each) if other in evidence.boxes]
            for each in parts.phrases
        ]
        self.locations = locate(
            [evidence.boxes.get(each, ()) for each in self.words],
            [[each[OTHERS_AT if len(each) > 1 else 0] for each in theirs] for theirs in rivals],
            OTHERS_AT,
        )
        self.height, self.width = evidence.picture.shape[:2]

    def phrase(self, place: int) -> Iterator[Checked]:
        phrase, words = self.parts.phrases[place], self.words[place]
        if phrase.denied or words not in self.evidence.boxes:
            yield Checked("rest", words, phrase.span, place)
            return
        # Things of any colour first: what is there in the wrong colour is there.
        there = [
            each
            for each in self.locations
            if each.sure(place) >= FOUND and self.is_surest(place, each)
        ]
        best = max((each.sure(place) for each in there), default=0.0)
        yield Checked(
            "thing", phrase.thing if there else f"no {phrase.thing}", phrase.head, place,
            bool(there), _centred(best, FOUND), _boxes(there),
        )  # fmt: skip
        for attribute in phrase.attributes:
            yield self.attribute(place, attribute, there)
        if phrase.count is not None:
            yield self.count(place, phrase)

    def attribute(self, place: int, attribute: Attribute, there: list[Location]) -> Checked:
        thing = self.parts.phrases[place].thing
        words = f"{attribute.text} {thing}"
        if (colour := base_colour(attribute.text)) and attribute.kind == "colour":
            shares = [self.coloured(each, colour) for each in there]
            most = max(shares, default=0.0)
            fitting = [each for each, share in zip(there, shares, strict=True) if share >= COLOURED]
            return Checked(
                "attribute", words if fitting else f"no {words}", attribute.span, place,
                bool(fitting), _centred(most, COLOURED), _boxes(fitting or there),
            )  # fmt: skip
        lead = self.lead(_other(self.parts, attribute))
        if lead is None or (there and abs(lead) < SCORED):
            return Checked("attribute", words, attribute.span, place, boxes=_boxes(there))
        held = bool(there) and lead >= 0
        return Checked(
            "attribute", words if held else f"not {words}", attribute.span, place, held,
            _centred(lead + 1, 1.0), _boxes(there),
        )  # fmt: skip

    def count(self, place: int, phrase: Phrase) -> Checked:
        """By boxes: a thing counts for the phrase that is surest of it, if its colour fits."""
        mine = [each for each in self.locations if self.belongs(place, each)]
        twins = [each for each in self.parts.phrases if _kind(each) == _kind(phrase)]
        wanted = sum(each.count or 0 for each in twins)
        sure = [each.sure(place) for each in self.locations if self.fits(place, each)]
        ranked = sorted(sure, reverse=True)
        last = ranked[wanted - 1] if len(ranked) >= wanted else 0.0
        beyond = ranked[wanted] if len(ranked) > wanted else 0.0
        text = f"{wanted} {_noun(self.parts, phrase)}"
        if held := len(mine) == wanted:
            sureness = min(last, 2 * FOUND - beyond)
        else:
            text = f"{len(mine) or 'none'} instead of {text}"
            sureness = 2 * FOUND - beyond if len(mine) > wanted else last
        span = phrase.number or phrase.span
        least, most = (0.5, 1.0) if held else (0.0, 0.49)
        confidence = min(max(_centred(sureness, FOUND), least), most)
        return Checked("count", text, span, place, held, confidence, _boxes(mine))

    def relation(self, relation: Relation) -> Checked:
        """By where its things are, as far as that can be told, else by the swapped sentence."""
        parts = self.parts
        ends = [parts.words(parts.phrases[end].span) for end in (relation.subject, relation.object)]
        words = f"{ends[0]} {relation.text} {ends[1]}"
        first, second = (self.best(end) for end in (relation.subject, relation.object))
        boxes = _boxes([each for each in (first, second) if each])
        lead = self.lead(_turned(parts, relation))
        known = all(each in self.evidence.boxes for each in ends)
        apart = self.apart(relation.kind, first, second) if first and second else None
        if not known or (apart is None and lead is None and first and second):
            return Checked("relation", words, relation.span, boxes=boxes)
        if not (first and second):
            held, confidence = False, 0.0
        else:
            margin = (0 if apart is None else apart - APART) + (0 if lead is None else lead / 4)
            held, confidence = margin >= 0, _centred(margin + 1, 1.0)
        text = words if held else f"not: {words}"
        return Checked("relation", text, relation.span, None, held, confidence, boxes)

    def apart(self, kind: str, first: Location, second: Location) -> float | None:
        """How far a relation is true, in sides of the picture; None for those of no direction."""
        (ax, ay), (bx, by) = first.centre, second.centre
        across, down = (bx - ax) / self.width, (by - ay) / self.height
        return {"left": across, "right": -across, "above": down, "below": -down}.get(kind)

    def best(self, place: int) -> Location | None:
        """Where a phrase is, if it is anywhere: its own before those that others are surer of."""
        mine = [each for each in self.locations if self.fits(place, each)]
        own = [each for each in mine if self.belongs(place, each)]
        found = max(own or mine, key=lambda each: each.sure(place), default=None)
        return found if found and found.sure(place) >= FOUND else None

    def belongs(self, place: int, location: Location) -> bool:
        """Whether a thing is one of a phrase's."""
        sure = location.sure(place) >= FOUND and self.fits(place, location)
        return sure and self.is_surest(place, location)

    def is_surest(self, place: int, location: Location) -> bool:
        """Whether no phrase for another thing, whose colours fit, is surer of a thing."""
        mine = _kind(self.parts.phrases[place])
        rivals = (
            location.sure(other)
            for other, phrase in enumerate(self.parts.phrases)
            if _kind(phrase) != mine and self.fits(other, location)
        )
        return location.sure(place) >= max(rivals, default=0.0)

    def fits(self, place: int, location: Location) -> bool:
        """Whether a thing has the colours of a phrase, as far as they can be told."""
        colours = [base_colour(each) for each in self.parts.phrases[place].texts("colour")]
        known = [each for each in colours if each]
        least = COLOURED / max(1, len(known))
        return all(self.coloured(location, each) >= least for each in known)

    def coloured(self, location: Location, colour: str) -> float:
        return colour_share(self.evidence.picture, location.box, colour)

    def lead(self, sentence: str | None) -> float | None:
        """Mean lead of the prompt's score over a sentence's."""
        own, other = (self.evidence.scores.get(each) for each in (self.parts.text, sentence or ""))
        if not own or not other:
            return None
        return float(np.mean(np.subtract(own, other)))


def _turned(parts: Parts, relation: Relation) -> str | None:
    """The prompt with a relation turned, where there is a contrary that reads well."""
    words = turned(relation)
    shared = sum(each.span == relation.span for each in parts.relations) > 1
    return put(parts.text, [(relation.span, words)]) if words and not shared else None


def _other(parts: Parts, attribute: Attribute) -> str | None:
    """The prompt with an attribute's contrary; None for colours, which pixels show."""
    word = SIZE_OPPOSITES.get(attribute.text) or QUALITY_OPPOSITES.get(attribute.text)
    return put(parts.text, [(attribute.span, word)]) if word else None


def _others(parts: Parts, phrase: Phrase) -> list[str]:
    """A phrase with its like in place of its thing: "a red circle" → "a red square"."""
    if phrase.denied:
        return []
    words, start = parts.words(phrase.span), phrase.span.start
    head = Span(phrase.head.start - start, phrase.head.end - start)
    likes = likes_of(parts.words(phrase.head).lower())[:MOST_OTHERS]
    return [put(words, [(head, each)]) for each in likes]


def _kind(phrase: Phrase) -> tuple:
    """What tells things apart that are searched: their name and colours."""
    return phrase.thing, tuple(sorted(phrase.texts("colour")))


def _noun(parts: Parts, phrase: Phrase) -> str:
    colours = [each.text for each in phrase.attributes if each.kind == "colour"]
    return " ".join([*colours, parts.words(phrase.head).lower()])


def _centred(value: float, threshold: float) -> float:
    """A value in [0, 1] for one that decides at a threshold: 0.5 there."""
    if value < threshold:
        return max(0.0, 0.5 * value / threshold)
    return min(1.0, 0.5 + 0.5 * (value - threshold) / max(1 - threshold, threshold))


def _boxes(locations: Sequence[Location]) -> tuple[tuple[float, ...], ...]:
    return tuple(each.box for each in locations)
