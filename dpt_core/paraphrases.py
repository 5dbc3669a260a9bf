"""The same caption with its things in another order: what a sentence means, not where words stand.

"A red cube left of a blue ball" becomes "A blue ball right of a red cube", by the grammar of
:mod:`.phrases`.
"""

from __future__ import annotations

import re
from itertools import pairwise

from .negatives import meaning, turned
from .phrases import Parts, Span, put, take_apart

_LINKS = re.compile(r"[\s,]*(and|is|are)?[\s,]*", re.IGNORECASE)
"""What may stand between two things, apart from their relation."""


def reordered(caption: str) -> str:
    """A sentence that means the same and names its things from the last to the first.

    Args:
        caption: an English description of a picture.

    Returns:
        The sentence; the caption itself where the grammar finds none that certainly means the same.
    """
    parts = take_apart(caption)
    spans = [phrase.span for phrase in parts.phrases]
    contrary = [turned(relation) for relation in parts.relations]
    if contrary and (len(spans) != 2 or len(contrary) > 1 or not contrary[0]):
        return caption
    if not all(_LINKS.fullmatch(between) for between in _between(parts)):
        return caption
    changes = [
        (span, _put_at(span, other, parts))
        for span, other in zip(spans, reversed(spans), strict=True)
    ]
    changes += zip((relation.span for relation in parts.relations), contrary, strict=True)
    sentence = put(caption, tuple(changes))
    return sentence if meaning(take_apart(sentence)) == meaning(parts) else caption


def _between(parts: Parts) -> list[str]:
    """What stands between neighbouring things and their relation."""
    known = sorted(each.span for each in (*parts.phrases, *parts.relations))
    return [parts.text[end:start] for (_, end), (start, _) in pairwise(known)]


def _put_at(span: Span, other: Span, parts: Parts) -> str:
    """The words of another place, with a capital where a sentence begins."""
    words = parts.words(other)
    if other[0] == 0:
        words = words[0].lower() + words[1:]
    return words[0].upper() + words[1:] if span[0] == 0 and parts.text[0].isupper() else words
