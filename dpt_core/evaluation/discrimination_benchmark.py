"""Benchmarks of discrimination: image-text matching and referring expressions on real data.

Matching asks as the paper trains: a captioned picture, a hard negative text and picture, a random
text and picture. Grounding asks whether the surest box finds the thing that a phrase names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..boxes import grounding_hits
from ..reading import TIMESTEP, encode_pixels, matching_scores, noise_of, read_boxes
from ..training.data import (
    GroundingDataset,
    HardNegativeTable,
    JsonlGrounding,
    JsonlMatching,
    MatchingDataset,
    RefCoco,
)
from .arms import Models
from .benchmarks import file_digest
from .processes import ALONE, Processes, Share
from .run import RunFolder, missing, write_text
from .statistics import Estimate, share
from .tables import latex_table, markdown_table

PAIRS = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))
"""(picture, text) of an example's passes; 0 its own, 1 the hard negative, 2 the random one."""

RULES = {"phrases": False, "phrases_generalised": True}
"""Whether a box counts by generalised IoU."""

TITLES = {
    "text": "right text above hard negative",
    "text_of_three": "right text first of three",
    "image": "right image above hard negative",
    "image_of_three": "right image first of three",
    "phrases": "phrase found, IoU ≥ 0.5",
    "phrases_generalised": "phrase found, generalised IoU ≥ 0.5",
}


@dataclass(frozen=True)
class Question:
    """One kind of examples.

    Attributes:
        name: matching or grounding.
        file: where the examples are.
        digest: of that file.
    """

    name: str
    file: str
    digest: str


@dataclass(frozen=True)
class Asked:
    """How examples are read.

    Attributes:
        timesteps: noise levels in [0, 999]; one or more.
        seed: of the noise and of the negatives that are drawn.
        size: side of the pictures in pixels.
        batch_size: examples read together.
        limit: only so many examples of each kind, from the first one; 0 for all.
    """

    timesteps: tuple[int, ...] = (TIMESTEP,)
    seed: int = 0
    size: int = 512
    batch_size: int = 8
    limit: int = 0

    def places(self, examples: Sequence[Any]) -> range:
        """Which examples are read."""
        return range(len(examples))[: self.limit or None]


def open_matching(path: str | Path, images: str | Path, asked: Asked) -> MatchingDataset:
    """The published table of hard negatives (.tsv), or .jsonl.

    Raises:
        DataError: the file cannot be used.
    """
    kind = JsonlMatching if Path(path).suffix == ".jsonl" else HardNegativeTable
    return kind(path, size=asked.size, images=images, seed=asked.seed)


def open_grounding(path: str | Path, images: str | Path, asked: Asked) -> GroundingDataset:
    """RefCOCO in MDETR's form (.json), or .jsonl.

    Raises:
        DataError: the file cannot be used.
    """
    kind = JsonlGrounding if Path(path).suffix == ".jsonl" else RefCoco
    return kind(path, size=asked.size, images=images, seed=asked.seed)


def question(name: str, path: str | Path) -> Question:
    """A kind of examples, told from others by its file's content."""
    return Question(name, Path(path).name, file_digest(path))


def open_answers(
    models: Models,
    path: str | Path,
    asked: Asked,
    kinds: Sequence[Question],
    processes: Processes,
) -> RunFolder:
    """Open the folder of a benchmark.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    settings = {
        "asked": asdict(asked),
        "device": models.plain.device.type,
        "weights": models.fingerprint(),
    }
    with processes.main_first():
        return RunFolder(path, settings, kinds)


def answer(
    models: Models,
    folder: RunFolder,
    asked: Asked,
    data: Mapping[Question, MatchingDataset | GroundingDataset],
    progress: Callable[[int], None] = lambda examples: None,
    share: Share = ALONE,
) -> None:
    """Read the examples that are not read yet, with the model's LoRA and without.

    Args:
        models: the adapter and what it reads.
        folder: where rows go: per example and side its scores, or hits, at every timestep.
        asked: how.
        data: the examples of each kind.
        progress: called with the number of examples that were read.
        share: the batches that are this process's.
    """
    for kind, examples in data.items():
        places = asked.places(examples)
        for _, batch, chosen in missing([kind], places, folder, asked.batch_size, share):
            some = [examples[place] for place in chosen]
            read = _match if isinstance(examples, MatchingDataset) else _ground
            columns = read(models, asked, some, chosen)
            folder.write_rows(kind, batch, [
                {"index": place} | {name: values[row] for name, values in columns.items()}
                for row, place in enumerate(chosen)
            ])  # fmt: skip
            progress(len(chosen))


def summarise_answers(folder: RunFolder, asked: Asked, kinds: Sequence[Question]) -> dict[str, Any]:
    """Accuracies with their 95% intervals, as JSON values.

    Returns:
        Side (base, lora) → figure → `at`: timestep → accuracy; with several timesteps and for
        matching also `mean`: the accuracy of the scores' mean over them.
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        rows = list(folder.rows(kind))
        for side in (key for key in rows[0] if key != "index"):
            values = np.array([row[side] for row in rows])  # [N, T, 5] scores or [N, T, 2] hits
            judge = _matched if kind.name == "matching" else _grounded
            figures = found.setdefault(side, {})
            for place, level in enumerate(asked.timesteps):
                for name, right in judge(values[:, place]).items():
                    figures.setdefault(name, {"at": {}})["at"][level] = share(right)._asdict()
            if kind.name == "matching" and len(asked.timesteps) > 1:
                for name, right in _matched(values.mean(1)).items():
                    figures[name]["mean"] = share(right)._asdict()
    return found


def write_answers(
    folder: RunFolder, asked: Asked, kinds: Sequence[Question]
) -> tuple[list[list[str]], list[str]]:
    """Write `results.json`, `table.md` and `table.tex`.

    Returns:
        The table as rows of cells, and what is to be said below it.
    """
    sides = summarise_answers(folder, asked, kinds)
    numbers = {kind.name: sum(1 for _ in folder.rows(kind)) for kind in kinds}
    rows = answer_table(sides, asked)
    notes = [", ".join(f"{number} examples of {name}" for name, number in numbers.items())
             + ". In brackets: 95% intervals."]  # fmt: skip
    results = {"examples": numbers, "timesteps": asked.timesteps, "sides": sides}
    write_text(folder.path / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder.path / "table.md", markdown_table(rows) + "\n" + "\n".join(notes) + "\n")
    write_text(folder.path / "table.tex", latex_table(rows))
    return rows, notes


def answer_table(sides: Mapping[str, Mapping[str, Any]], asked: Asked) -> list[list[str]]:
    """Accuracies as rows of cells, the first row being the heading."""
    names = {"base": "base", "lora": "with LoRA"}
    several = len(asked.timesteps) > 1
    heading = [""]
    for side in sides:
        heading += [f"{names[side]}, timestep {level}" for level in asked.timesteps]
        heading += [f"{names[side]}, mean score"] * several
    rows = [heading]
    for name, title in TITLES.items():
        cells = [title]
        for figures in sides.values():
            if name not in figures:
                break
            cells += [_percent(each) for each in figures[name]["at"].values()]
            cells += [_percent(figures[name].get("mean"))] * several
        if len(cells) == len(heading):
            rows.append(cells)
    return rows


def _match(models: Models, asked: Asked, some: Sequence[Any], places: Sequence[int]) -> dict:
    """Scores of every pair, per side `[B][T][5]`."""
    pictures = torch.stack([example.images for example in some], dim=1)  # [3, B, 3, H, W]
    latents = encode_pixels(models.plain, pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    texts = [[example.captions[place] for example in some] for place in range(3)]
    noise = noise_of(latents[0], len(asked.timesteps), [asked.seed + place for place in places])
    found = {}
    for side, pipeline in _sides(models).items():
        scores = matching_scores(
            pipeline, models.adapter, latents[[picture for picture, _ in PAIRS]],
            [texts[text] for _, text in PAIRS], asked.timesteps, noise,
        )  # fmt: skip
        found[side] = scores.permute(2, 0, 1).tolist()
    return found


def _ground(models: Models, asked: Asked, some: Sequence[Any], places: Sequence[int]) -> dict:
    """Hits by both rules, per side `[B][T][2]`; of several true boxes any may be found."""
    latents = encode_pixels(models.plain, torch.stack([example.image for example in some]))
    phrases = [example.caption for example in some]
    noise = noise_of(latents, len(asked.timesteps), [asked.seed + place for place in places])
    found = {}
    for side, pipeline in _sides(models).items():
        read = read_boxes(pipeline, models.adapter, latents, phrases, asked.timesteps, noise)
        found[side] = [
            [_hits(boxes[row], surest[row], example.boxes) for boxes, surest in read]
            for row, example in enumerate(some)
        ]
    return found


def _hits(boxes: torch.Tensor, surest: torch.Tensor, truth: torch.Tensor) -> list[bool]:
    """Whether the surest of boxes `[Q, 4]` finds one of `[n, 4]`, by both rules."""
    number = len(truth)
    boxes, surest = boxes.expand(number, -1, -1), surest.expand(number, -1)
    return [
        bool(grounding_hits(boxes, surest, truth, generalised=rule).any())
        for rule in RULES.values()
    ]


def _sides(models: Models) -> dict[str, Any]:
    sides = {"base": models.plain, "lora": models.tuned}
    return sides if models.tuned is not models.plain else {"base": models.plain}


def _matched(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Of scores `[N, 5]`, which examples are right; a tie is wrong."""
    own, hard_text, other_text, hard_image, other_image = scores.T
    return {
        "text": own > hard_text,
        "text_of_three": own > np.maximum(hard_text, other_text),
        "image": own > hard_image,
        "image_of_three": own > np.maximum(hard_image, other_image),
    }


def _grounded(hits: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(RULES, hits.T, strict=True))


def _percent(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value, low, high, _ = (100 * each for each in Estimate(**estimate))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"
