"""Words of a prompt and what they are: determiners, attributes, things, relations, verbs."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from . import words as lists

WORD = re.compile(r"[A-Za-z]+(?:[-'’][A-Za-z]+)*|\d+(?::\d+)?|[^\sA-Za-z\d]")

EITHER = frozenset(
    "orange rose peach olive lime cream rainbow mint coral amber emerald ivory copper bronze glass "
    "stone paper wood metal plastic leather brick tile steel concrete gold silver wool fabric "
    "cotton silk cardboard straw canvas clay crystal iron lace linen fur foil chrome granite "
    "marble bamboo square round female male adult double top bottom left right front interior "
    "exterior antique tan polka stripe blonde blond dark cold light open plaid velvet denim "
    "porcelain wicker rubber ceramic clear fresh giant public domestic single individual maple oak "
    "tabby crimson mini compact hardwood base ornamental fat sweet khaki navy real professional "
    "miniature polka checkerboard violet lavender turquoise private indigo".split()
)
"""Attributes before a thing, and things themselves where none follows."""

COVERED = frozenset(
    "covered filled topped lined trimmed rimmed capped clad haired legged sleeved faced walled "
    "coated stained themed framed tiled shaped sized carpeted flavored frosted decked walled eyed "
    "painted powered colored coloured bordered dusted infested style like".split()
)
"""Participles that make one attribute with the thing before them: "snow covered"."""


@dataclass(frozen=True)
class Token:
    """A word, or several that are one.

    Attributes:
        text: in lower case.
        span: (start, end) characters of the prompt.
        tag: D determiner, # number, Q amount, S shade, A attribute, K the end of a compound
            attribute, T thing, R relation, V verb, P pronoun, C conjunction, N denial, O other,
            ASIDE, QUOTE, STOP.
        kind: of a relation.
        finite: of a verb: it is no participle.
    """

    text: str
    span: tuple[int, int]
    tag: str
    kind: str = ""
    finite: bool = False


def tag(prompt: str) -> list[Token]:
    """The words of a prompt, from left to right; an opening like "a photo of" is left out."""
    words = [(match[0].lower().replace("’", "'"), match.span()) for match in WORD.finditer(prompt)]
    words = words[_opening([text for text, _ in words]) :]
    found: list[Token] = []
    at = 0
    while at < len(words):
        quoted = _quoted(words, at)
        length, saying = _saying([text for text, _ in words], at, found)
        if quoted:
            span = words[at][1][0], words[at + quoted - 1][1][1]
            found.append(Token("", span, "QUOTE"))
            at += quoted
        elif saying:
            span = words[at][1][0], words[at + length - 1][1][1]
            found.append(
                Token(" ".join(text for text, _ in words[at : at + length]), span, *saying)
            )
            at += length
        else:
            text, span = words[at]
            following = [text for text, _ in words[at + 1 : at + 4]]
            name, finite = _tag(text, found[-1] if found else None, following)
            found.append(Token(text, span, name, finite=finite))
            at += 1
    return found


def attribute_kind(word: str) -> str:
    """The kind of an attribute, see :data:`dpt_core.phrases.KINDS`."""
    if word in lists.COLOURS or word.endswith(("-colored", "-coloured")):
        return "colour"
    for kind, known in (
        ("size", lists.SIZES), ("material", lists.MATERIALS), ("pattern", lists.PATTERNS),
    ):  # fmt: skip
        if word in known:
            return kind
    return "quality"


def _opening(words: list[str]) -> int:
    """How many words come before the first thing: "a black and white photo of"."""
    if "of" in words[:8]:
        at = words.index("of")
        *before, noun = words[:at] or [""]
        plain = all(
            _is_attribute(each) or each in lists.DETERMINERS or each == "and" for each in before
        )
        if noun in lists.PICTURES and plain:
            return at + 1
    return max(
        (
            len(each.split())
            for each in lists.OPENINGS
            if tuple(words[: len(_split(each))]) == _split(each)
        ),
        default=0,
    )


@cache
def _split(saying: str) -> tuple[str, ...]:
    return tuple(WORD.findall(saying))


def _quoted(words: list[tuple[str, tuple[int, int]]], at: int) -> int:
    """How many words a quotation takes that begins here, its marks included."""
    if words[at][0] not in ('"', "“"):
        return 0
    ends = (place for place in range(at + 1, len(words)) if words[place][0] in ('"', "”"))
    return next(ends, at) + 1 - at


@cache
def _sayings() -> dict[str, list[tuple[tuple[str, ...], tuple[str, str]]]]:
    """First word → sayings with their tag and kind, the longest first."""
    found = defaultdict(list)
    for kind, sayings in lists.RELATIONS.items():
        for saying in sayings:
            found[_split(saying)[0]].append((_split(saying), ("R", _kind(kind))))
    for sayings, name in ((lists.COUNTED, "#"), (lists.AMOUNTS, "Q"), (lists.ASIDES, "ASIDE")):
        for saying in sayings:
            found[_split(saying)[0]].append((_split(saying), (name, "")))
    for each in found.values():
        each.sort(key=lambda entry: -len(entry[0]))
    return dict(found)


def _kind(relation: str) -> str:
    return "other" if relation in ("across", "at") else relation


def _saying(words: list[str], at: int, found: list[Token]) -> tuple[int, tuple[str, str] | None]:
    after = found[-1].tag if found else ""
    for saying, meaning in _sayings().get(words[at], ()):
        if tuple(words[at : at + len(saying)]) != saying:
            continue
        following = words[at + len(saying)] if at + len(saying) < len(words) else ""
        ended = not following or not re.match(r"[a-z0-9]", following)
        if meaning[0] == "ASIDE" and (following == "of" or (not ended and _names_on(following))):
            continue  # "on the left side", "in the middle of"
        if meaning[0] == "R" and len(saying) == 1:
            if words[at] in _VERBAL_ENDS and ended and after in ("T", "V", "R", "ASIDE"):
                return 1, ("O", "")
            if words[at] in ("ride", "carry", "drinks", "drives", "drive", "outside",
                             "inside") and after in ("D", "A"):  # fmt: skip
                continue  # a thing
        return len(saying), meaning
    return 0, None


_PLACES = frozenset("room rooms area space lot lots meter meters garage".split())
_VERBAL_ENDS = frozenset(
    "by up down over under off past through along about inside outside out to from before after "
    "around on in across above below".split()
)


def _names_on(word: str) -> bool:
    """Whether a phrase may go on with this word: it is no closed class's."""
    if not word or not re.match(r"[a-z0-9]", word):
        return False
    if word in ("very", "extremely", "really"):
        return True
    closed = (
        word in lists.DETERMINERS or word in lists.PRONOUNS or word in lists.CONJUNCTIONS
        or word in lists.NOT_COUNTED or (word in lists.OTHERS and word not in lists.QUALITIES)
        or (word in lists.VERBS and word not in lists.SOMETIMES_NOUNS) or word in _prepositions()
    )  # fmt: skip
    verbal = word.endswith("ing") and word not in lists.ING_NOUNS
    return not closed and not (verbal and word not in lists.ING_MODIFIERS)


@cache
def _prepositions() -> frozenset[str]:
    return frozenset(
        each for sayings in lists.RELATIONS.values() for each in sayings if " " not in each
    )


def _tag(word: str, before: Token | None, following: list[str]) -> tuple[str, bool]:
    """The tag of a single word, and whether it is a finite verb."""
    after = following[0] if following else ""
    previous = before.tag if before else ""
    on = _names_on(after)
    inside = previous in ("D", "#", "A", "S", "Q", "K")
    if not re.match(r"[a-z0-9]", word):
        return ("STOP" if word in ".!?:|" else "C"), False
    if word[0].isdigit():
        return (
            "O"
            if ":" in word or previous == "V" and not on
            else "T"
            if previous == "T" or not on
            else "#"
        ), False
    if word in lists.NUMBERS:
        return ("#" if on and not (word == "one" and previous == "D") else "O"), False
    if word in lists.NOT_COUNTED:
        return "N", False
    if word in lists.DETERMINERS:
        return "D", False
    for known, name in ((lists.PRONOUNS, "P"), (lists.CONJUNCTIONS, "C")):
        if word in known:
            return name, False
    if word in ("light", "back") and (previous == "T" if word == "light" else inside and on):
        return "T", False
    if word in lists.SHADES and after in (*lists.COLOURS, *lists.SIZES, *lists.SHADES):
        return "S", False
    if word in ("very", "so", "extremely", "really") and on:
        return "S", False
    if word in COVERED and previous in ("T", "A") and on:
        return "K", False
    if word in lists.SHADES and following[:1] == ["and"] and following[1:2] != []:
        if following[1] in lists.SHADES and not inside:
            return "S", False
    if _is_attribute(word):
        return _attribute_tag(word, previous, following, before and before.text == "other"), False
    if word in lists.VERBS and not (word in lists.SOMETIMES_NOUNS and inside):
        return "V", True
    if word in lists.OTHERS or (word.endswith("ly") and word not in lists.LY_NOUNS):
        return "O", False
    doubtful = word in lists.ING_DOUBTFUL and not inside and previous != "R"
    if word.endswith("ing") and len(word) > 4 and (word not in lists.ING_NOUNS or doubtful):
        return _ing_tag(word, previous, after, on), False
    if word.endswith(("ful", "ous", "less", "tive", "ical")) and on and previous != "T":
        return "A", False
    if word.endswith("ed") and len(word) > 3 and word not in lists.ED_NOUNS:
        return ("A" if on and previous != "T" else "V"), False
    return "T", False


def _is_attribute(word: str) -> bool:
    return (
        word in lists.COLOURS or word in lists.SIZES or word in lists.MATERIALS
        or word in lists.PATTERNS or word in lists.QUALITIES
        or word.endswith(lists.ADJECTIVE_ENDINGS)
    )  # fmt: skip


def _attribute_tag(word: str, previous: str, following: list[str], other: bool) -> str:
    after = following[0] if following else ""
    if previous == "D" and word == "orange" and not _names_on(after) and other:
        return "A"
    if word in ("colored", "coloured"):
        return "A"
    more = after in ("and", ",", "or", "&") and any(
        _is_attribute(each) and attribute_kind(each) == "colour" for each in following[1:2]
    )
    if word in EITHER and previous == "T" and attribute_kind(word) == "material":
        return "T"
    if word in EITHER and after in ("left", "right") and following[1:2] == ["of"]:
        return "T"
    if _names_on(after) or (more and previous != "T" and attribute_kind(word) == "colour"):
        return "A"
    if word in EITHER:
        certain = word in ("gold", "silver", "tan", "navy", "violet", "lavender", "turquoise",
                           "khaki", "blonde", "blond", "orange")  # fmt: skip
        if certain and previous in ("C", "S", "R", "V", "A"):
            return "A"
        return (
            "T"
            if word not in ("left", "right", "open", "clear", "round", "cold")
            else ("T" if previous in ("D", "A", "#") else "O")
        )
    return "A"


def _ing_tag(word: str, previous: str, after: str, on: bool) -> str:
    if word in lists.ING_MODIFIERS and on and (previous != "T" or after in _PLACES):
        return "A" if _is_attribute(after) else "T"
    if previous in ("D", "#", "A", "S", "Q"):
        return "A" if on else "T"
    return "A" if not previous and on else "V"
