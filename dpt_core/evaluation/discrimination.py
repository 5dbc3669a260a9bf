"""Evaluation of discrimination: image-text matching and referring expressions on any data set.

Matching asks as the paper trains: a captioned picture, a hard negative text and picture, a random
text and picture. Grounding asks whether the surest box finds the thing that a phrase names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..boxes import grounding_hits
from ..files import write_json, write_text
from ..fingerprints import file_digest
from ..reading import TIMESTEP, encode_pixels, matching_scores, noise_of, read_boxes
from ..training.data.datasets import GroundingDataset, MatchingDataset
from ..training.data.hard_negatives import HardNegativeTable
from ..training.data.jsonl import JsonlGrounding, JsonlMatching
from ..training.data.refcoco import RefCoco
from .models import Models
from .processes import ALONE, Processes, Share
from .run import RunFolder, missing
from .scenes import SceneMatching, ScenePhrases
from .statistics import average, proportion
from .tables import latex_table, markdown_table, percent

PAIRS = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))
"""(picture, text) of an example's passes; 0 its own, 1 the hard negative, 2 the random one."""

MATCHING, GROUNDING = KINDS = ("matching", "grounding")

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
        name: one of :data:`KINDS`.
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

    def indices(self, examples: Sequence[Any]) -> range:
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


def scene_questions(count: int) -> dict[Question, Sequence[Any]]:
    """Both kinds of examples from the shapes world's held-out scenes.

    Args:
        count: of scenes; phrases that name one thing are fewer.
    """
    data = {MATCHING: SceneMatching(count), GROUNDING: ScenePhrases(count)}
    return {Question(name, "shapes", str(count)): each for name, each in data.items()}


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
    data: Mapping[Question, Sequence[Any]],
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
        indices = asked.indices(examples)
        for _, batch, chosen in missing([kind], indices, folder, asked.batch_size, share):
            some = [examples[index] for index in chosen]
            read = _match if kind.name == MATCHING else _ground
            columns = read(models, asked, some, chosen)
            folder.write_rows(kind, batch, [
                {"index": index} | {name: values[row] for name, values in columns.items()}
                for row, index in enumerate(chosen)
            ])  # fmt: skip
            progress(len(chosen))


def summarise_answers(folder: RunFolder, asked: Asked, kinds: Sequence[Question]) -> dict[str, Any]:
    """Accuracies with their 95% intervals, as JSON values.

    Returns:
        Side (base, lora) → figure → `at`: timestep → accuracy; with several timesteps also `mean`:
        for matching the accuracy of the scores' mean over them, for grounding the mean accuracy.
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        rows = list(folder.rows(kind))
        for side in (key for key in rows[0] if key != "index"):
            values = np.array([row[side] for row in rows])  # [N, T, 5] scores or [N, T, 2] hits
            right = _matched if kind.name == MATCHING else _grounded
            figures = found.setdefault(side, {})
            for column, level in enumerate(asked.timesteps):
                for name, each in right(values[:, column]).items():
                    figures.setdefault(name, {"at": {}})["at"][level] = proportion(each)._asdict()
            if len(asked.timesteps) > 1:
                for name, each in right(values.mean(1)).items():
                    mean = proportion(each) if kind.name == MATCHING else average(each)
                    figures[name]["mean"] = mean._asdict()
    return found


class Answers(NamedTuple):
    """What an evaluation of discrimination found.

    Attributes:
        rows: a table as rows of cells.
        notes: what is to be said below it, a line each.
        results: the figures, as JSON values.
    """

    rows: list[list[str]]
    notes: list[str]
    results: dict[str, Any]


def write_answers(folder: RunFolder, asked: Asked, kinds: Sequence[Question]) -> Answers:
    """Write `results.json`, `table.md` and `table.tex`."""
    sides = summarise_answers(folder, asked, kinds)
    numbers = {kind.name: sum(1 for _ in folder.rows(kind)) for kind in kinds}
    rows = answer_table(sides, asked)
    notes = [", ".join(f"{number} examples of {name}" for name, number in numbers.items())
             + ". In brackets: 95% intervals."]  # fmt: skip
    results = {"examples": numbers, "timesteps": asked.timesteps, "sides": sides}
    write_json(folder.path / "results.json", results)
    write_text(folder.path / "table.md", markdown_table(rows) + "\n" + "\n".join(notes) + "\n")
    write_text(folder.path / "table.tex", latex_table(rows))
    return Answers(rows, notes, results)


def answer_table(sides: Mapping[str, Mapping[str, Any]], asked: Asked) -> list[list[str]]:
    """Accuracies as rows of cells, the first row being the heading."""
    names = {"base": "base", "lora": "with LoRA"}
    several = len(asked.timesteps) > 1
    rows = [["", *(f"timestep {level}" for level in asked.timesteps), *(["mean"] * several)]]
    for side, figures in sides.items():
        for name, title in TITLES.items():
            if name in figures:
                cells = [percent(each) for each in figures[name]["at"].values()]
                cells += [percent(figures[name].get("mean"))] * several
                rows.append([f"{names[side]}: {title}", *cells])
    return rows


def _match(models: Models, asked: Asked, some: Sequence[Any], indices: Sequence[int]) -> dict:
    """Scores of every pair, per side `[B][T][5]`."""
    pictures = torch.stack([example.images for example in some], dim=1)  # [3, B, 3, H, W]
    latents = encode_pixels(models.plain, pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    texts = [[example.captions[which] for example in some] for which in range(3)]
    noise = noise_of(latents[0], len(asked.timesteps), [asked.seed + index for index in indices])
    found = {}
    for side, pipeline in _sides(models).items():
        scores = matching_scores(
            pipeline, models.adapter, latents[[picture for picture, _ in PAIRS]],
            [texts[text] for _, text in PAIRS], asked.timesteps, noise,
        )  # fmt: skip
        found[side] = scores.permute(2, 0, 1).tolist()
    return found


def _ground(models: Models, asked: Asked, some: Sequence[Any], indices: Sequence[int]) -> dict:
    """Hits by both rules, per side `[B][T][2]`; of several true boxes any may be found."""
    latents = encode_pixels(models.plain, torch.stack([example.image for example in some]))
    phrases = [example.caption for example in some]
    noise = noise_of(latents, len(asked.timesteps), [asked.seed + index for index in indices])
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
    return {"base": models.plain} | ({"lora": models.tuned} if models.has_lora else {})


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
