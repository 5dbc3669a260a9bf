"""Things in a picture: boxes of several phrases and noise levels that mean the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .grounding import Grounding

FLOOR = 0.1
"""Boxes with less confidence at a level are not looked at."""

OVERLAP = 0.2
"""Intersection over union above which two boxes are one thing. Boxes of the same thing differ by
more than those of detectors do: they are read off a coarse feature map."""

NEAR = 0.6
"""Or their centres are nearer than this share of the shorter side of the smaller box."""

LEAD = 0.5
"""Weight of a phrase's lead over others beside its confidence."""

Box = tuple[float, float, float, float]


@dataclass
class Location:
    """A thing, whatever it is.

    Attributes:
        box: corners (x0, y0, x1, y1) in pixels, of its most confident reading.
        confidences: phrase's place → its mean confidence over the levels.
        leads: phrase's place → its lead over the same phrase with another thing, at one level.
    """

    box: Box
    confidences: dict[int, float] = field(default_factory=dict)
    leads: dict[int, float] = field(default_factory=dict)

    @property
    def centre(self) -> tuple[float, float]:
        """In pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    def sure(self, place: int) -> float:
        """How sure a phrase is of this thing, in [0, 1]; its lead counts by :data:`LEAD`."""
        sure = self.confidences.get(place, 0.0) + LEAD * self.leads.get(place, 0.0)
        return min(max(sure, 0.0), 1.0)


def locate(
    readings: Sequence[Sequence[Grounding]],
    others: Sequence[Sequence[Grounding]] = (),
    level: int = 0,
) -> list[Location]:
    """Find things in what several phrases found.

    Args:
        readings: per phrase, a :class:`Grounding` for each noise level, boxes `[Q, 4]` in pixels.
        others: per phrase, what other phrases found that name its likes, at one of the levels.
        level: which.

    Returns:
        The things; a phrase's confidence in one is the mean over its levels, 0 where a level does
        not find it.
    """
    locations: list[Location] = []
    for place, each in enumerate(readings):
        for box, confidence in _agreed(each):
            same = (
                one for one in locations if place not in one.confidences and is_same(box, one.box)
            )
            location = next(same, None)
            if location is None:
                location = Location(box)
                locations.append(location)
            location.confidences[place] = confidence
    for place, rivals in enumerate(others):
        for location in locations if rivals else ():
            own, *theirs = (_at(location.box, each) for each in (readings[place][level], *rivals))
            location.leads[place] = own - max(theirs)
    return locations


def _at(box: Box, found: Grounding) -> float:
    """The confidence of what was found at a place."""
    pairs = zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
    same = [score for other, score in pairs if score > FLOOR and is_same(box, tuple(other))]
    return max(same, default=0.0)


def is_same(one: Box, other: Box) -> bool:
    """Whether two boxes show the same thing."""
    (ax, ay), (bx, by) = Location(one).centre, Location(other).centre
    sides = [abs(box[2 + axis] - box[axis]) for box in (one, other) for axis in (0, 1)]
    if max(abs(ax - bx), abs(ay - by)) < NEAR * min(sides):
        return True
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, wide) * max(0.0, high)
    both = sides[0] * sides[1] + sides[2] * sides[3] - common
    return common > OVERLAP * both


def _agreed(readings: Sequence[Grounding]) -> list[tuple[Box, float]]:
    """One phrase's boxes of all levels, each thing once: the surest box, the mean confidence."""
    every = [
        (float(score), level, tuple(box))
        for level, (boxes, scores) in enumerate(readings)
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        if score > FLOOR
    ]
    things: list[tuple[Box, dict[int, float]]] = []
    for score, level, box in sorted(every, key=lambda each: -each[0]):
        same = next((levels for known, levels in things if is_same(box, known)), None)
        if same is None:
            things.append((box, {level: score}))
        else:
            same.setdefault(level, score)
    found = [(box, sum(levels.values()) / len(readings)) for box, levels in things]
    return sorted(found, key=lambda each: -each[1])
