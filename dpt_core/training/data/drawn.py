"""Pictures that a model drew for known prompts, as training data: a detector says what they show.

A picture that shows its prompt is an example of it, and the others of that prompt are its hard
negatives. A wrong picture is an example of what it does show, and its prompt is a caption that
looks right and is not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...colour_names import base_colour, colour_share
from ...english.nouns import singular
from ...english.words import NUMBER_NAMES
from ...scene_prompts import ScenePrompt, put_together
from .captioned import ListedPictures, box_of
from .datasets import GroundingRow, MatchingRow
from .examples import DataError
from .rows import CaptionedPictures

CLEAR = 0.35
"""Share of the middle of a box that must have a colour for the thing to have it."""

APART = 0.06
"""How far the middles of two things must lie apart along the axis of a relation, in sides of the
picture: the demo's judge asks for 8 of 128 pixels."""

SAME = 0.7
"""Intersection over union from which two boxes of a thing are one."""

AXES = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Relation → axis and sign of the way from its second thing to its first."""

SAYINGS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}

MOST_KINDS = 3
"""Kinds of things that a picture may show to be described."""


class Seen(NamedTuple):
    """A thing in a picture.

    Attributes:
        thing: in the singular.
        attribute: "" for none, None where it cannot be told.
        box: (x, y, width, height) in pixels.
    """

    thing: str
    attribute: str | None
    box: tuple[float, ...]


class DrawnData(NamedTuple):
    """Training data, and what became of the pictures.

    Attributes:
        data: examples.
        right, wrong: pictures that show their prompt, and pictures that show something else.
        unread: pictures of which nobody can tell; they are left out.
    """

    data: CaptionedPictures
    right: int
    wrong: int
    unread: int


def from_drawn(
    pictures: Sequence[torch.Tensor],
    parts: Sequence[Mapping[str, Any]],
    boxes: Sequence[Sequence[Mapping[str, Any]] | None],
    size: int,
) -> DrawnData:
    """Training data of pictures that were drawn for known prompts.

    Args:
        pictures: `[H, W, 3]` each, in [0, 1].
        parts: what the prompt of each consists of (:class:`~dpt_core.scene_prompts.ScenePrompt`).
        boxes: for each picture what a detector found, `{x, y, width, height}` in pixels, with a
            `label`; a label may name an attribute, otherwise colours are taken from the pixels.
            None for a picture of which nobody can tell.
        size: side of the squares that pictures become, in pixels.

    Raises:
        DataError: the lists are of different lengths, parts are none, or no box can be read.
    """
    if not len(parts) == len(boxes) == len(pictures):
        counts = f"{len(pictures)} images, {len(parts)} parts and boxes of {len(boxes)} images"
        raise DataError(f"expected the parts of each image, and its boxes; got {counts}")
    prompts = prompts_of(parts)
    words = words_of(prompts)
    read_as, states = [], []
    for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        array = (picture.cpu().float().numpy() * 255).round().clip(0, 255).astype(np.uint8)
        found, seen = boxes[index], None
        if found is not None:
            seen = _detected(array, found, words, f"image {index + 1}")
        states.append(_state(seen, prompt, array.shape))
        read_as.append(seen)
    return _rows(pictures, prompts, read_as, states, size)


class Words(NamedTuple):
    """What prompts name."""

    things: set[str]
    attributes: set[str]


def prompts_of(parts: Sequence[Mapping[str, Any]]) -> list[ScenePrompt]:
    """The prompts that consist of such parts.

    Raises:
        DataError: they are none.
    """
    return [_prompt(each, index) for index, each in enumerate(parts)]


def _prompt(parts: Any, index: int) -> ScenePrompt:
    try:
        things = [
            (str(each["thing"]), _attribute(each), int(each["count"])) for each in parts["phrases"]
        ]
        relations = [str(each["text"]) for each in parts["relations"]]
        if things and len(relations) <= 1:
            return put_together(things, *relations)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"parts of image {index + 1}: expected what DPT Scene Prompts gives; got "
            f"{str(parts)[:80]!r}. Wire its output parts"
        ) from error
    raise DataError(f"parts of image {index + 1}: expected things and one relation at most")


def words_of(prompts: Sequence[ScenePrompt]) -> Words:
    """What prompts name together."""
    phrases = [each for prompt in prompts for each in prompt.parts["phrases"]]
    return Words({each["thing"] for each in phrases}, {_attribute(each) for each in phrases})


def _attribute(phrase: Mapping[str, Any]) -> str:
    return " ".join(each["text"] for each in phrase["attributes"])


def _detected(
    picture: np.ndarray, boxes: Sequence[Mapping[str, Any]], words: Words, where: str
) -> list[Seen]:
    """What a detector found of the things that any prompt names."""
    found = []
    for box in boxes:
        sides, label = box_of(box, where)
        said = label.lower().split()
        said = [*said[:-1], singular(said[-1])] if said else []
        thing = max((t for t in words.things if _ends(said, t.split())), key=len, default=None)
        if thing is not None and min(sides[2:]) > 0:
            before = " ".join(said[: len(said) - len(thing.split())])
            found.append(Seen(thing, _told(picture, sides, before, words.attributes), sides))
    return _once(found)


def _ends(said: list[str], thing: list[str]) -> bool:
    return said[-len(thing) :] == thing


def _told(picture: np.ndarray, sides: Sequence[float], before: str, known: set[str]) -> str | None:
    """An attribute: as the label says it, or the colour that pixels have."""
    padded = f" {before} "
    named = [each for each in known if each and f" {each} " in padded]
    if named:
        return max(named, key=len)
    if known == {""}:
        return ""
    x, y, width, height = sides
    shares = {
        each: colour_share(picture, (x, y, x + width, y + height), colour)
        for each in known if (colour := base_colour(each))
    }  # fmt: skip
    best = max(shares, key=shares.get, default=None)
    return best if best is not None and shares[best] >= CLEAR else None


def _once(found: Sequence[Seen]) -> list[Seen]:
    """Each thing once, the box that the detector named first."""
    from torchvision.ops import batched_nms, box_convert

    if not found:
        return []
    corners = box_convert(torch.tensor([each.box for each in found]), "xywh", "xyxy")
    kinds = sorted({each.thing for each in found})
    ids = torch.tensor([kinds.index(each.thing) for each in found])
    falling = torch.arange(len(found), 0, -1, dtype=torch.float32)
    return [found[int(place)] for place in batched_nms(corners, falling, ids, SAME).sort().values]


def _state(seen: list[Seen] | None, prompt: ScenePrompt, shape: Sequence[int]) -> bool | None:
    """Whether a picture shows its prompt; None where that cannot be told."""
    if seen is None or any(each.attribute is None for each in seen):
        return None
    phrases = prompt.parts["phrases"]
    kinds = [(each["thing"], _attribute(each)) for each in phrases]
    counts = [each["count"] for each in phrases]
    if Counter((each.thing, each.attribute) for each in seen) != dict(
        zip(kinds, counts, strict=True)
    ):
        return False
    if not prompt.parts["relations"]:
        return True
    (relation,) = prompt.parts["relations"]
    if relation["kind"] not in AXES:
        return None
    way = _way(*_each(seen, kinds), relation["kind"], shape)
    return None if abs(way) < APART else way > 0


def _each(seen: Sequence[Seen], kinds: Iterable[tuple[str, str]]) -> list[Seen]:
    """The first thing of each kind."""
    return [next(one for one in seen if (one.thing, one.attribute) == kind) for kind in kinds]


def _way(first: Seen, second: Seen, kind: str, shape: Sequence[int]) -> float:
    """How far a thing lies from another where it should, in sides of the picture."""
    axis, sign = AXES[kind]
    middles = [each.box[axis] + each.box[axis + 2] / 2 for each in (first, second)]
    return sign * (middles[0] - middles[1]) / shape[1 - axis]


def _described(seen: Sequence[Seen], prompt: ScenePrompt, shape: Sequence[int]) -> str | None:
    """A caption of what a picture shows, of the kind of its prompt; None where there is none."""
    counts = Counter((each.thing, str(each.attribute)) for each in seen)
    if not 0 < len(counts) <= MOST_KINDS or max(counts.values()) > max(NUMBER_NAMES):
        return None
    things = [(thing, attribute, count) for (thing, attribute), count in counts.items()]
    if prompt.parts["relations"] and [count for *_, count in things] == [1, 1]:
        first, second = _each(seen, counts)
        ways = {kind: _way(first, second, kind, shape) for kind in AXES}
        kind = max(ways, key=ways.get)
        if ways[kind] >= APART:
            return put_together(things, SAYINGS[kind]).text
    return put_together(things).text


def _rows(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[ScenePrompt],
    read_as: Sequence[list[Seen] | None],
    states: Sequence[bool | None],
    size: int,
) -> DrawnData:
    wrong_of: dict[str, list[str]] = defaultdict(list)
    for index, (prompt, state) in enumerate(zip(prompts, states, strict=True)):
        if state is False:
            wrong_of[prompt.text].append(str(index))
    matching, grounding, unread = [], [], 0
    for index, (prompt, seen, state) in enumerate(zip(prompts, read_as, states, strict=True)):
        name, where = str(index), f"image {index + 1}"
        caption = prompt.text if state else None
        if state is False:
            caption = _described(seen, prompt, pictures[index].shape)
        if caption is None:
            unread += 1
            continue
        others = tuple(wrong_of[prompt.text]) if state else ()
        against = () if state else (prompt.text,)
        matching.append(MatchingRow(name, caption, others, against, where))
        grounding += _boxes(name, seen, where)
    right = sum(state is True for state in states)
    if not matching:
        raise DataError(
            f"expected pictures whose things can be told; of {len(pictures)} none can. Look at the "
            "boxes and their labels"
        )
    data = CaptionedPictures(tuple(matching), tuple(grounding), ListedPictures(pictures, size))
    return DrawnData(data, right, len(matching) - right, unread)


def _boxes(name: str, seen: Sequence[Seen], where: str) -> list[GroundingRow]:
    """A row for each kind of thing in a picture."""
    kinds: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for each in seen:
        kinds[each.thing, str(each.attribute)].append(each.box)
    rows = []
    for (thing, attribute), boxes in kinds.items():
        words = put_together([(thing, attribute, len(boxes))]).text
        spans = (((0, len(words)),),) * len(boxes)
        rows.append(GroundingRow(name, words, tuple(boxes), spans, where))
    return rows
