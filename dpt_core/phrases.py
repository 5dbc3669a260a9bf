"""A prompt taken apart: its things with their attributes and counts, and how they are related.

A small grammar of our own; it needs no model. Closed classes of English (determiners, prepositions,
verbs of pictures, adjectives) are lists in :mod:`.english.words`, and what stands in no list is the
name of a thing. It reads captions and prompts as people write them for pictures: descriptions in
the present tense. Its limits:

- It is not told apart which thing a long sentence's later preposition belongs to: a relation starts
  from the thing before it, except after what somebody wears, holds or has.
- What is done ("is eating"), denied ("without a hat") or written in quotation marks is not taken
  apart; it is named in :attr:`Parts.rest`.
- A verb that is no list's and does not end in -ing or -ed passes for a thing.
- "it", "one" and "other" stand for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .english.nouns import is_plural, singular
from .english.parts import KINDS, Attribute, Parts, Phrase, Relation, Span, put
from .english.tagging import Token, attribute_kind, tag
from .english.words import COUNTED, GARMENTS_AFTER_IN, NUMBERS

__all__ = ["KINDS", "Attribute", "Parts", "Phrase", "Relation", "Span", "put", "take_apart"]

HELD_BY_SUBJECT = {"wearing", "holding", "with"}
"""Relations whose object takes no further ones: "a man in a hat on a horse" is a man on a horse."""

DONE = {"eating", "pulling", "riding", "holding"}
"""Relations that are verbs."""

COPULAS = {"is", "are", "was", "were", "be", "painted", "colored", "coloured", "looks", "being"}
COLLECTIVES = frozenset(
    "group herd flock bunch pile stack row set piece pieces slice slices couple pair pairs lot "
    "lots number line rows bunches stacks piles array variety kind collection assortment crowd "
    "bit expanse sea series load groups herds sets lines flight type gang mix".split()
)


def take_apart(prompt: str) -> Parts:
    """Take any English prompt apart; see the module's head for what is out of reach.

    Args:
        prompt: of any length; nothing is too odd, at worst it has no phrases.
    """
    reader = _Reader(prompt, tag(prompt))
    reader.read()
    phrases = tuple(
        replace(phrase, attributes=(*phrase.attributes, *reader.later.get(place, ())))
        for place, phrase in enumerate(reader.phrases)
    )
    return Parts(prompt, phrases, tuple(reader.relations), tuple(_joined(prompt, reader.rest)))


@dataclass
class _Reader:
    """Reads tagged words from left to right."""

    text: str
    tokens: list[Token]
    phrases: list[Phrase] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    later: dict[int, list[Attribute]] = field(default_factory=dict)
    rest: list[Span] = field(default_factory=list)
    clause: int | None = None
    """The first phrase of the clause: what a finite verb belongs to."""
    verb: bool = False
    """The clause has had its finite verb."""

    def read(self) -> None:
        at, between = 0, []
        while at < len(self.tokens):
            phrase, after = self._phrase(at)
            if isinstance(phrase, Phrase):
                denied = any(token.tag == "N" for token in between)
                phrase = replace(phrase, denied=denied or phrase.denied)
                self.phrases.append(phrase)
                self._relate(between)
                said = any(token.tag == "V" and token.finite for token in between)
                if self.clause is None or self._begins_clause(between, after):
                    self.clause, self.verb = len(self.phrases) - 1, False
                self.verb |= said
                at, between = after, []
            elif phrase:
                one = self._text(after) in ("one", "ones")
                if one or not self._say_of_last(phrase, between):
                    self.rest += [each.span for each in phrase]
                at = after
            else:
                token = self.tokens[at]
                if token.tag == "STOP":
                    self._leave(between)
                    self.clause, between = None, []
                else:
                    between.append(token)
                at += 1
        self._leave(between)

    def _phrase(self, at: int) -> tuple[Phrase | list[Attribute] | None, int]:
        """The phrase that begins at a word, or attributes without a thing, and where it ends."""
        start, attributes, number, count, denied = at, [], None, None, False
        amount = False
        while at < len(self.tokens):
            token = self.tokens[at]
            if token.tag == "D":
                if attributes and not amount:
                    break
                if token.text in ("a", "an") and not amount:
                    number, count = Span(*token.span), 1
                denied |= token.text == "no"
                at += 1
            elif token.tag == "#":
                number, count = (
                    Span(*token.span),
                    NUMBERS.get(token.text) or COUNTED.get(token.text),
                )
                count = count or (int(token.text) if token.text.isdigit() else None)
                at, amount = at + 1, True
            elif token.tag == "Q":
                attributes = [each for each in attributes if each.kind != "size"]
                number, count, amount, at = None, None, True, at + 1
            elif token.tag in ("A", "S"):
                attribute, at = self._attribute(at)
                attributes.append(attribute)
            elif token.tag == "K" and attributes:
                at = self._compound(attributes, at)
            elif token.tag == "QUOTE" and at > start:
                self.rest.append(Span(*token.span))
                at += 1
            elif token.tag == "C" and attributes and self._goes_on(at, self._tag(start) == "D"):
                at += 1
            elif token.tag == "T":
                end = at
                while end < len(self.tokens) and self.tokens[end].tag == "T":
                    end += 1
                if self._tag(end) == "K":  # "snow covered hill"
                    span = Span(token.span[0], self.tokens[end].span[1])
                    attributes.append(Attribute(self.text[slice(*span)].lower(), "quality", span))
                    at = end + 1
                    continue
                last = self.tokens[end - 1]
                if last.text in COLLECTIVES and self._text(end) == "of":
                    attributes = [each for each in attributes if each.kind != "size"]
                    count, number, amount, at = None, None, True, end + 1
                    continue
                span, head = (
                    Span(self.tokens[start].span[0], last.span[1]),
                    Span(token.span[0], last.span[1]),
                )
                names = [each.text for each in self.tokens[at:end]]
                names[-1] = singular(names[-1].removesuffix("'s"))
                many = is_plural(last.text.removesuffix("'s"))
                if count == 1 and many and number and self.text[slice(*number)].lower() != "one":
                    count = None  # "a scissors", "a few"
                return (
                    Phrase(" ".join(names), tuple(attributes), count, many, span, head, number,
                           denied),
                    end,
                )  # fmt: skip
            else:
                break
        return (attributes or None), at

    def _attribute(self, at: int) -> tuple[Attribute, int]:
        first = at
        while self._tag(at) == "S" and self._tag(at + 1) in ("S", "A"):
            at += 1
        token = self.tokens[at]
        words = [each.text for each in self.tokens[first:at] if each.text not in _STRESS]
        begin = next(
            (each.span[0] for each in self.tokens[first:at] if each.text not in _STRESS),
            token.span[0],
        )
        text = " ".join([*words, token.text])
        at += 1
        if self._text(at) in ("colored", "coloured", "color", "colour") and self._tag(at) == "A":
            at += 1
        return Attribute(text, attribute_kind(token.text), Span(begin, token.span[1])), at

    def _begins_clause(self, between: list[Token], after: int) -> bool:
        """Whether the newest phrase is what a new clause is about: "… and the door is blue"."""
        if any(token.text in _NEW_CLAUSES for token in between):
            return True
        joined = all(token.tag == "C" for token in between)
        return joined and self.verb and self._tag(after) == "V" and self.tokens[after].finite

    def _compound(self, attributes: list[Attribute], at: int) -> int:
        """ "Leather clad" and "black rimmed" are one attribute, "yellow painted" is a colour."""
        last, token = attributes[-1], self.tokens[at]
        if last.kind == "colour" and token.text in ("painted", "colored", "coloured", "tiled"):
            if token.text == "tiled":
                attributes.append(Attribute(token.text, "material", Span(*token.span)))
        else:
            span = Span(last.span.start, token.span[1])
            attributes[-1] = Attribute(f"{last.text} {token.text}", "quality", span)
        return at + 1

    def _goes_on(self, at: int, started: bool) -> bool:
        """Whether more attributes of the same thing follow a comma or an "and"."""
        if self._tag(at + 1) == "C":
            at += 1
        ahead = at + 1
        if self._tag(ahead) == "T" and self._text(at) == "," and started:
            return True  # "a large, cake"
        if self._tag(ahead) not in ("A", "S"):
            return False
        return True

    def _say_of_last(self, attributes: list[Attribute], between: list[Token]) -> bool:
        """ "The wall is red", "a man in black": attributes of a thing that was named before."""
        if not self.phrases or not between:
            return False
        texts = [token.text for token in between if token.tag in ("V", "R")]
        if not texts:
            return False
        if texts[-1] in COPULAS:
            relative = any(token.tag == "P" for token in between)
            place = len(self.phrases) - 1 if relative or self.clause is None else self.clause
        elif texts[-1] in ("in", "wearing", "wears", "dressed in"):
            place = len(self.phrases) - 1
        else:
            return False
        if not any(token.tag == "N" for token in between):
            self.verb = True
            self.later.setdefault(place, []).extend(attributes)
            between.clear()
            return True
        return False

    def _relate(self, between: list[Token]) -> None:
        """The relation of the newest phrase to an earlier one, by the words between them."""
        here = len(self.phrases) - 1
        if not here:
            return self._leave(between)
        last = (
            self.relations[-1] if self.relations and self.relations[-1].object == here - 1 else None
        )
        words = [token for token in between if token.tag in ("R", "V")]
        if not words:
            joined = between and between[-1].text == "and"
            of_all = self.words_of(self.phrases[here].span).lower().startswith("the ")
            if last and last.kind in HELD_BY_SUBJECT and joined and not of_all:
                self.relations.append(replace(last, object=here))
            if any(token.text == ";" for token in between):
                self.clause = None
            return self._leave(between)
        prepositions = [token for token in words if token.tag == "R"]
        chosen = (prepositions or words)[-1]
        if chosen.tag == "V" and chosen.text in COPULAS:
            return self._leave(between)
        kind = chosen.kind or "other"
        if chosen.text == "in" and self.phrases[here].thing.split()[-1] in GARMENTS_AFTER_IN:
            kind = "wearing"
        finite = any(token.tag == "V" and token.finite for token in between)
        relative = any(token.tag == "P" for token in between)
        subject = here - 1
        if finite and not relative and self.clause is not None:
            subject = self.clause
        elif last and last.kind in HELD_BY_SUBJECT and kind != "of" and not relative:
            subject = last.subject
        span = Span(*chosen.span)
        self.relations.append(Relation(subject, here, kind, chosen.text, span))
        self._leave([token for token in between if token is not chosen])

    def _leave(self, tokens: list[Token]) -> None:
        for token in tokens:
            done = token.tag == "V" and token.text not in COPULAS
            if token.tag in ("N", "ASIDE", "QUOTE") or done or token.kind in DONE:
                self.rest.append(Span(*token.span))

    def words_of(self, span: Span) -> str:
        return self.text[span.start : span.end]

    def _tag(self, at: int) -> str:
        return self.tokens[at].tag if at < len(self.tokens) else ""

    def _text(self, at: int) -> str:
        return self.tokens[at].text if at < len(self.tokens) else ""


_NEW_CLAUSES = {"where", "while", "as", "when", "but", ";", "because", "whose"}
_STRESS = {"very", "extremely", "really", "so", "all", "mostly", "slightly", "solid"}


def _joined(text: str, spans: list[Span]) -> Iterator[Span]:
    """Spans in order; neighbours are one."""
    kept: list[Span] = []
    for span in sorted(set(spans)):
        if kept and not text[kept[-1].end : span.start].strip():
            kept[-1] = Span(kept[-1].start, span.end)
        else:
            kept.append(span)
    yield from kept
