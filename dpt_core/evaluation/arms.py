"""The ways of drawing that are compared, by name: the arms of an evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..correction import PRESETS, Correction
from ..generation import Sampling, generate
from ..search import Search
from .models import Measure, Models

STANDARD = ("base", "self-correction", "lora", "both")
"""The arms of the published comparison, the base first."""

JOINT = "+"
"""Between the parts of an arm's name."""

ALIASES = {"both": ("self-correction+lora", "+ both")}
"""Name → the name it stands for, and its title."""


@dataclass(frozen=True)
class Arm:
    """One way of drawing.

    Attributes:
        name: for files, unique in a run.
        title: for people.
        sampling: how.
        lora: with the checkpoint's LoRA.
        candidates: pictures drawn per prompt, of which the best by score is kept; ≥ 1.
        adapter: the adapter chooses between candidates; otherwise the model's own denoising error.
        search: candidates that are dropped on the way, or None.
    """

    name: str
    title: str
    sampling: Sampling
    lora: bool = False
    candidates: int = 1
    adapter: bool = True
    search: Search | None = None


class Ways(NamedTuple):
    """What names of arms leave open.

    Attributes:
        sampling: of all arms; its correction is that of the arm *self-correction*.
        candidates: of the arm *best-of* without a number.
    """

    sampling: Sampling
    candidates: int = 0


class Part(NamedTuple):
    """Part of an arm's name.

    Attributes:
        title: for people; a number in the name stands in its braces.
        change: from an arm, the ways and the number, None where there is none, to the arm with it.
        numbered: whether the name has a number at its end; None where it may.
    """

    title: str
    change: Callable[[Arm, Ways, float | None], Arm]
    numbered: bool | None = False


def _corrected(arm: Arm, correction: Correction | None) -> Arm:
    return replace(arm, sampling=replace(arm.sampling, correction=correction))


def _preset(name: str) -> Part:
    return Part(f"+ {name}", lambda arm, ways, _: _corrected(arm, PRESETS[name]))


def _searching(arm: Arm, **settings: Any) -> Arm:
    if arm.search is None and "candidates" not in settings:
        raise ValueError("stages and decide say how a search goes: search-N stands before them")
    return replace(arm, search=replace(arm.search or Search(), **settings))


PARTS: dict[str, Part] = {
    "base": Part("base", lambda arm, ways, _: arm),
    "self-correction": Part(
        "+ self-correction", lambda arm, ways, _: _corrected(arm, ways.sampling.correction)
    ),
    **{name: _preset(name) for name in PRESETS},
    "lora": Part("+ LoRA", lambda arm, ways, _: replace(arm, lora=True)),
    "guidance": Part(
        "guidance {:g}",
        lambda arm, ways, scale: replace(arm, sampling=replace(arm.sampling, guidance=scale)),
        numbered=True,
    ),
    "steps": Part(
        "{:g} steps",
        lambda arm, ways, steps: replace(arm, sampling=replace(arm.sampling, steps=int(steps))),
        numbered=True,
    ),
    "best-of": Part(
        "best of {:g}",
        lambda arm, ways, number: replace(arm, candidates=int(number or ways.candidates)),
        numbered=None,
    ),
    "zero-shot": Part(
        "best of {:g} without adapter",
        lambda arm, ways, number: replace(arm, candidates=int(number), adapter=False),
        numbered=True,
    ),
    "search": Part(
        "search of {:g}",
        lambda arm, ways, number: _searching(arm, candidates=int(number)),
        numbered=True,
    ),
    "stages": Part(
        "in {:g} stages",
        lambda arm, ways, number: _searching(arm, stages=int(number)),
        numbered=True,
    ),
    "decide": Part(
        "by {:g}%",
        lambda arm, ways, percent: _searching(arm, decide_after=percent / 100),
        numbered=True,
    ),
}
"""Parts that names of arms consist of. A new one is available in every command at once."""

HELP = (
    "base, self-correction, lora, both, a preset, best-of-N, guidance-X, steps-N, zero-shot-N, "
    "search-N, stages-N, decide-PERCENT, or several joined by +, as in balanced+search-4"
)
"""Names of arms, for people."""


def arm_of(name: str, ways: Ways) -> Arm:
    """The arm of a name: parts joined by +, each of them one of :data:`PARTS`.

    Raises:
        ValueError: there is no such part, or a number is missing, unwanted or out of range.
    """
    spelled, title = ALIASES.get(name, (name, None))
    arm, titles = Arm(name, "", ways.sampling.plain), []
    for word in spelled.split(JOINT):
        part, number = _part(word, name)
        if number is not None and number < 1:
            raise ValueError(f"numbers in an arm's name must be at least 1; got {name!r}")
        arm = part.change(arm, ways, number)
        titles.append(part.title.format(number or arm.candidates))
    if arm.candidates < 1:
        raise ValueError(f"say how many candidates {name!r} chooses from, as in best-of-4")
    if arm.search and arm.candidates > 1:
        raise ValueError(f"an arm chooses in the end or on the way, not both; got {name!r}")
    return replace(arm, title=title or " ".join(titles))


def choose_arms(names: Sequence[str], ways: Ways, lora: bool = True) -> tuple[Arm, ...]:
    """Arms by name, in the order of the names.

    Args:
        names: the first is what the others are compared with.
        ways: what names leave open.
        lora: whether the checkpoint has a LoRA.

    Raises:
        ValueError: there is no such arm, it stands there twice, or it needs what there is not.
    """
    arms = tuple(arm_of(name, ways) for name in names)
    if doubled := [name for index, name in enumerate(names) if name in names[:index]]:
        raise ValueError(f"every arm is drawn once; got {doubled[0]!r} twice")
    if not lora and (tuned := [arm.name for arm in arms if arm.lora]):
        raise ValueError(f"the checkpoint has no LoRA: leave out the arm {tuned[0]!r}")
    return arms


def _part(word: str, name: str) -> tuple[Part, float | None]:
    """A part of a name, and the number at its end."""
    found = re.fullmatch(r"(.+?)(?:-(\d+(?:\.\d+)?))?", word)
    part = PARTS.get(found[1]) if found else None
    number = float(found[2]) if found and found[2] else None
    if part is None or part.numbered not in (None, number is not None):
        raise ValueError(f"the arms are {HELP}; got {name!r}")
    return part, number


class Drawn(NamedTuple):
    """Pictures of one arm.

    Attributes:
        pictures: `[N, H, W, 3]` uint8.
        seeds: what each was drawn from.
        curves: `[S, N]` alignment scores at the steps where they were read; S may be 0.
        candidates: `[K, N]` what all candidates were chosen by, or None where there was no choice.
        scores: `[N]` of the pictures, where they are known already.
    """

    pictures: np.ndarray
    seeds: list[int]
    curves: np.ndarray
    candidates: np.ndarray | None = None
    scores: np.ndarray | None = None


def draw(
    models: Models, arm: Arm, prompts: Sequence[str], seeds: Sequence[int], measure: Measure
) -> Drawn:
    """Draw one picture per prompt and seed in an arm's way.

    Candidate k of a prompt is drawn from its seed + k, so the first is the picture of the arm
    without a choice; of equal scores the first candidate wins.

    Raises:
        ValueError: see :func:`~dpt_core.generation.generate`.
    """
    if arm.search:
        pipeline = models.pipeline(arm.lora)
        found = generate(pipeline, prompts, seeds, arm.sampling, models.adapter, arm.search)
        return Drawn(found.pictures, found.seeds, found.scores, found.candidates)
    score = models.score if arm.adapter else models.score_without_adapter
    pipeline, runs, scores = models.pipeline(arm.lora), [], []
    for candidate in range(arm.candidates):
        shifted = [seed + candidate for seed in seeds]
        runs.append(generate(pipeline, prompts, shifted, arm.sampling, models.adapter))
        if arm.candidates > 1:
            scores.append(score(runs[-1].pictures, prompts, measure))
    if arm.candidates == 1:
        return Drawn(runs[0].pictures, list(seeds), runs[0].scores)
    best = np.argmax(scores, axis=0)
    return Drawn(
        np.stack([runs[k].pictures[n] for n, k in enumerate(best)]),
        [seed + int(k) for seed, k in zip(seeds, best, strict=True)],
        np.stack([runs[k].scores[:, n] for n, k in enumerate(best)], axis=1),
        np.stack(scores),
        np.max(scores, axis=0) if arm.adapter else None,
    )
