"""Whether pictures are right: from their scores, or from which parts of the prompt hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of a prompt in one picture.

    Attributes:
        text: the part in words, or what is wrong with it.
        held: whether the picture shows it; None where that cannot be told.
    """

    text: str
    held: bool | None


@dataclass(frozen=True)
class Verdict:
    """What is known about one picture.

    Attributes:
        held: whether it is right, or better than the one it is compared with; None where that is
            not known.
        parts: what the verdict is made of, if it was made part by part.
        score: the alignment score, if there is one.
        gain: the score less that of the picture it is compared with, if there is one.
    """

    held: bool | None = None
    parts: tuple[Part, ...] = ()
    score: float | None = None
    gain: float | None = None


def by_threshold(scores: Sequence[float], threshold: float) -> list[Verdict]:
    """Right is what scores at least the threshold."""
    return [Verdict(score >= threshold, score=score) for score in scores]


def by_first(scores: Sequence[float], first: Sequence[float]) -> list[Verdict]:
    """Better or worse than the picture at the same place of the first batch.

    The first batch itself is neither, and so is a picture without a counterpart.
    """
    verdicts = []
    for place, score in enumerate(scores):
        gain = score - first[place] if scores is not first and place < len(first) else None
        verdicts.append(Verdict(None if not gain else gain > 0, score=score, gain=gain))
    return verdicts


def by_parts(text: str) -> list[Verdict]:
    """Right is what shows every part that can be told.

    Args:
        text: JSON, a list with an entry for every picture: a list of parts, or an object that
            holds that list as `parts` and, optionally, `prompt` and `score`. A part has `held`
            (true, false or null), its words as `text`, `says` or `part`, and optionally the number
            of its `phrase` and the `span` of characters in the prompt: parts of one phrase become
            one line, its first failure or the phrase itself.

    Raises:
        ValueError: the text is something else.
    """
    try:
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise TypeError("a list was expected")
        return [_verdict(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            "expected the JSON of DPT Explain, a list of parts for every picture, each with `held`"
            f" and its words; got {text[:80]!r} ({error})"
        ) from None


def _verdict(entry: Any) -> Verdict:
    listed, about = (entry["parts"], entry) if isinstance(entry, dict) else (entry, {})
    held = [part["held"] for part in listed]
    if wrong := [each for each in held if each not in (True, False, None)]:
        raise TypeError(f"held must be true, false or null; got {wrong[0]!r}")
    known = [each for each in held if each is not None]
    parts = tuple(_one(group, about.get("prompt")) for group in _by_phrase(listed))
    return Verdict(all(known) if known else None, parts, about.get("score"))


def _by_phrase(listed: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Parts that belong to one phrase together: thing, attributes and number."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for place, part in enumerate(listed):
        phrase = part.get("phrase")
        groups.setdefault(("part", place) if phrase is None else phrase, []).append(part)
    return list(groups.values())


def _one(group: Sequence[dict[str, Any]], prompt: str | None) -> Part:
    """A phrase in a line: its first failure, or as the prompt says it."""
    failed = next((part for part in group if part["held"] is False), None)
    if failed or len(group) == 1 or not prompt or not all(part.get("span") for part in group):
        chosen = failed or group[-1]
        words = _words(chosen)
    else:
        starts, ends = zip(*(part["span"] for part in group), strict=True)
        words = prompt[min(starts) : max(ends)]
    held = [part["held"] for part in group if part["held"] is not None]
    return Part(words, all(held) if held else None)


def _words(part: dict[str, Any]) -> str:
    name = next((name for name in ("text", "says", "part") if part.get(name)), "text")
    return str(part[name])


def share(verdicts: Sequence[Verdict]) -> str:
    """How many hold, in words: `1 of 4`, `3 of 4 better`; nothing where none is known."""
    if (right := _right(verdicts)) is None:
        return ""
    return f"{right} of {len(verdicts)}" + (" better" if _relative(verdicts) else "")


def mean_score(verdicts: Sequence[Verdict]) -> float | None:
    """The mean of the scores; None where there are none."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return sum(scores) / len(scores) if scores else None


def headline(batches: Sequence[Sequence[Verdict]]) -> str:
    """What changed from batch to batch: `1 of 4 → 4 of 4, mean score 0.46 → 0.67`."""
    if len(batches) < 2:
        return ""
    told, means = [], [mean_score(verdicts) for verdicts in batches]
    if _relative(batches[-1]):
        told.append(share(batches[-1]))
    elif all(share(verdicts) and not _relative(verdicts) for verdicts in batches):
        told.append(" → ".join(share(verdicts) for verdicts in batches))
    if None not in means:
        told.append("mean score " + " → ".join(f"{mean:.2f}" for mean in means))
    return ", ".join(filter(None, told))


def improved(first: Sequence[Verdict], last: Sequence[Verdict]) -> bool:
    """Whether more pictures hold, or where that says nothing, the mean score is higher."""
    right = _right(first), _right(last)
    if None not in right and right[0] != right[1]:
        return right[0] < right[1]
    means = mean_score(first), mean_score(last)
    return None not in means and means[0] < means[1]


def _right(verdicts: Sequence[Verdict]) -> int | None:
    known = [verdict.held for verdict in verdicts if verdict.held is not None]
    return sum(known) if known else None


def _relative(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.gain is not None for verdict in verdicts)
