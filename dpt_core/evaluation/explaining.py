"""How well explanations agree with the judge of the shapes world, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_convert

from ..adapter import DiscriminativeAdapter
from ..explain import (
    LEVELS,
    SENTENCE_LEVELS,
    Checked,
    Evidence,
    Explanation,
    explain,
    questions,
)
from ..generation import Sampling, generate
from ..grounding import Grounding
from ..phrases import take_apart
from ..reading import encode_pictures, matching_scores, noise_of, read_boxes
from ..shapes.caption import Caption, parse
from ..shapes.judge import NEAR, Found, judge
from ..shapes.scene import offset
from .models import Models
from .prompts import Source

ROWS = 32
"""Questions that go through the network together."""

KINDS = ("thing", "attribute", "count", "relation")


@dataclass
class Agreement:
    """Explanations against the judge.

    Attributes:
        parts: kind of part → how often explanation and judge said (held, holds).
        pictures: the same for whole pictures, where all parts hold and where the judge says that
            the caption holds: it also minds things that nobody asked for.
        untold: parts that could not be told.
    """

    parts: dict[str, Counter] = field(default_factory=lambda: {each: Counter() for each in KINDS})
    pictures: Counter = field(default_factory=Counter)
    strict: Counter = field(default_factory=Counter)
    untold: int = 0

    def add(self, explanation: Explanation, picture: np.ndarray, caption: Caption) -> None:
        """Compare one explanation."""
        verdict, told = judge(picture, caption), []
        for part in explanation.parts:
            if part.held is None:
                self.untold += 1
                continue
            truth = part_holds(part, explanation.prompt, caption, verdict.found)
            self.parts[part.kind][part.held, truth] += 1
            told.append((part.held, truth))
        if told:
            said, true = (all(each) for each in zip(*told, strict=True))
            self.pictures[said, true] += 1
            self.strict[said, verdict.holds] += 1

    def figures(self) -> dict[str, Any]:
        """Shares of agreement, and what they are of."""
        every = sum(self.parts.values(), Counter())
        counted = {"every part": every, **self.parts}
        whole = {"all parts": self.pictures, "the judge's verdict": self.strict}
        return {
            **{name: _share(each) for name, each in (counted | whole).items()},
            "untold": self.untold,
        }


def _share(counted: Counter) -> dict[str, float | int]:
    number = sum(counted.values())
    right = sum(count for (said, true), count in counted.items() if said == true)
    holding = sum(count for (_, true), count in counted.items() if true)
    return {
        "agreement": right / number if number else float("nan"),
        "number": number,
        "holding": holding,
        "missed": counted[True, False],
        "false alarms": counted[False, True],
    }


def part_holds(part: Checked, prompt: str, caption: Caption, found: Sequence[Found]) -> bool:
    """What the judge's reader says of a part.

    A thing is there in any colour; a colour is that of such a thing; a count is of things of that
    colour, whatever their size; a relation is as the judge has it, and false without its things.
    """
    if part.kind == "relation":
        first, second = caption.mentions
        return any(
            offset(a, b, caption.relation)[0] >= NEAR
            for a in found
            for b in found
            if a is not b and a.is_a(first) and b.is_a(second)
        )
    mention = caption.mentions[part.phrase]
    same = [each for each in found if each.shape == mention.shape]
    if part.kind == "thing":
        return bool(same)
    coloured = [each for each in same if each.colour == mention.colour]
    if part.kind == "count":
        twins = (
            each.count
            for each in caption.mentions
            if (each.shape, each.colour) == (mention.shape, mention.colour)
        )
        return len(coloured) == sum(twins)
    if prompt[part.span.start : part.span.end] == mention.size:
        return any(each.is_a(mention) for each in coloured)
    return bool(coloured)


def explain_pictures(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    pictures: np.ndarray,
    prompts: Sequence[str],
) -> Iterator[Explanation]:
    """Explain finished pictures through diffusers.

    Args:
        pipeline: of a family in :mod:`dpt_core.backbones.registry`.
        adapter: on the pipeline's device.
        pictures: `[N, H, W, 3]` uint8.
        prompts: one per picture.

    Yields:
        An explanation per picture. Of each picture the noise depends on its place alone.
    """
    for place, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        yield explain(take_apart(prompt), read(pipeline, adapter, picture, prompt, place))


def read(
    pipeline: Any, adapter: DiscriminativeAdapter, picture: np.ndarray, prompt: str, seed: int = 0
) -> Evidence:
    """Ask all questions that explain a prompt of one picture `[H, W, 3]` uint8."""
    asked, size = questions(take_apart(prompt)), picture.shape[:2]
    latent = encode_pictures(pipeline, picture[None])
    boxes: dict[str, list[Grounding]] = {}
    for levels in {asked.levels(each): None for each in (*asked.phrases, *asked.others)}:
        every = [e for e in (*asked.phrases, *asked.others) if asked.levels(e) == levels]
        noise = noise_of(latent, len(LEVELS), [seed])[[LEVELS.index(level) for level in levels]]
        for start in range(0, len(every), ROWS):
            some = every[start : start + ROWS]
            rows = latent.expand(len(some), *latent.shape[1:])
            some_noise = noise.expand(-1, len(some), *noise.shape[2:])
            for found, scores in read_boxes(pipeline, adapter, rows, some, levels, some_noise):
                for phrase, one, sure in zip(some, found, scores, strict=True):
                    scale = torch.tensor([size[1], size[0]] * 2)
                    corners = box_convert(one, "cxcywh", "xyxy") * scale
                    boxes.setdefault(phrase, []).append(Grounding(corners, sure))
    scores_of: dict[str, list[float]] = {}
    if asked.sentences:
        noise = noise_of(latent, len(SENTENCE_LEVELS), [seed])
        pairs = latent[None].expand(len(asked.sentences), *latent.shape)
        texts = [[each] for each in asked.sentences]
        found = matching_scores(pipeline, adapter, pairs, texts, SENTENCE_LEVELS, noise)
        scores_of = {
            each: found[:, place, 0].tolist() for place, each in enumerate(asked.sentences)
        }
    return Evidence(picture, boxes, scores_of)


def drawn(
    models: Models,
    source: Source,
    corrected: Sampling,
    number: int,
    batch_size: int,
    done: Callable[[float], None] = lambda amount: None,
) -> tuple[np.ndarray, list[str]]:
    """Pictures `[N, H, W, 3]` uint8 of the same prompts and seeds, plain and corrected in turn, and
    their prompts."""
    prompts = list(source.prompts)[: (number + 1) // 2]
    pictures: list[np.ndarray] = []
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        texts, seeds = [each.text for each in some], [each.seed for each in some]
        arms = [
            generate(models.plain, texts, seeds, sampling, models.adapter).pictures
            for sampling in (corrected.plain, corrected)
        ]
        pictures += [each for pair in zip(*arms, strict=True) for each in pair]
        done(2 * len(some))
    every = [each.text for each in prompts for _ in range(2)]
    return np.stack(pictures)[-number:], every[-number:]


def agreement(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    pictures: np.ndarray,
    prompts: Sequence[str],
    done: Callable[[float], None] = lambda amount: None,
) -> tuple[Agreement, list[Explanation]]:
    """Explain pictures of the shapes world and compare with the judge; see `explain_pictures`."""
    found, explained = Agreement(), []
    for place, each in enumerate(explain_pictures(pipeline, adapter, pictures, prompts)):
        found.add(each, pictures[place], parse(prompts[place]))
        explained.append(each)
        done(1)
    return found, explained
