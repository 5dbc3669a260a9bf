"""Metrics over the pictures of a run: batch by batch, resumable, like the drawing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..files import complete
from ..png import read_picture
from .arms import Arm
from .metrics.inception import inception_outputs
from .processes import ALONE, Share
from .prompts import Prompt
from .run import DIGITS, RunFolder, Task, missing

Scorer = Callable[[Sequence[np.ndarray], Sequence[str]], Mapping[str, np.ndarray]]
"""From `N` pictures `[H, W, 3]` uint8 and their prompts to columns `[N]`, or `[N, K]`."""

REFERENCE = "reference"
"""The name of the real pictures, in place of an arm's."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True)
class Pass:
    """One metric over the pictures of one arm.

    Attributes:
        metric: its name.
        arm: the arm's name, or :data:`REFERENCE`.
        weights: digest of the metric's weights and, for the reference, of its file names; other
            weights are another pass.
    """

    metric: str
    arm: str
    weights: str

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.metric}-{self.weights[:8]}/{self.arm}"


def score_pictures(
    folder: RunFolder,
    arm: Arm,
    over: Pass,
    prompts: Sequence[Prompt],
    scorer: Scorer,
    batch_size: int,
    progress: Callable[[int], None] = lambda pictures: None,
    share: Share = ALONE,
) -> None:
    """Score an arm's pictures that are not scored yet; columns are rounded to six decimals.

    Args:
        folder: with the pictures of this process's batches.
        arm, over: whose pictures, and the pass.
        prompts, batch_size, share: as the pictures were drawn.
        scorer: the metric.
        progress: called with the number of pictures that were scored.
    """
    for _, batch, chosen in missing([over], prompts, folder, batch_size, share):
        pictures = [read_picture(folder.picture(arm, prompt.index)) for prompt in chosen]
        columns = scorer(pictures, [prompt.text for prompt in chosen])
        folder.write_rows(over, batch, [
            {"index": prompt.index}
            | {name: _rounded(values[row]) for name, values in columns.items()}
            for row, prompt in enumerate(chosen)
        ])  # fmt: skip
        progress(len(chosen))


def extract_features(
    folder: RunFolder,
    over: Pass,
    files: Sequence[Path],
    extractor: nn.Module,
    batch_size: int,
    progress: Callable[[int], None] = lambda pictures: None,
    share: Share = ALONE,
) -> None:
    """Keep an Inception network's features and logits of pictures.

    Args:
        folder, over, batch_size, progress, share: see :func:`score_pictures`.
        files: the pictures; only slices are read, one at a time.
        extractor: see :func:`~dpt_core.evaluation.metrics.load_inception`.
    """
    for _, batch, chosen in missing([over], files, folder, batch_size, share):
        outputs = inception_outputs(extractor, [read_picture(path) for path in chosen])
        for kind, values in outputs._asdict().items():
            path = _features(folder, over, kind, batch)
            with complete(path, durable=False) as partial, partial.open("wb") as file:
                np.save(file, values)
        folder.write_rows(over, batch, [{"pictures": len(chosen)}])
        progress(len(chosen))


def features(folder: RunFolder, over: Pass, kind: str) -> Iterator[np.ndarray]:
    """Batches `[n, D]` of what :func:`extract_features` kept: `features` or `logits`."""
    for batch, _ in enumerate(folder.rows(over)):
        yield np.load(_features(folder, over, kind, batch))


class PictureFiles(Sequence[Path]):
    """Where an arm's pictures are, in order of the prompts; nothing is listed."""

    def __init__(self, folder: RunFolder, arm: Arm, count: int) -> None:
        self._folder, self._arm, self._indices = folder, arm, range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._indices[index]
        if isinstance(chosen, int):
            return self._folder.picture(self._arm, chosen)
        return [self._folder.picture(self._arm, each) for each in chosen]


def reference_files(folder: str | Path) -> list[Path]:
    """The pictures directly in a folder, by name.

    Raises:
        ValueError: there are fewer than two.
    """
    found = []
    if Path(folder).is_dir():
        found = sorted(each for each in Path(folder).iterdir() if each.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise ValueError(
            f"FID needs real pictures ({', '.join(SUFFIXES)}) in {folder}; got {len(found)}"
        )
    return found


def column(folder: RunFolder, task: Task, name: str) -> np.ndarray:
    """Values `[N]` of a column of rows, in order of the prompts; NaN where there is none."""
    values = [row[name] for row in folder.rows(task)]
    return np.array([math.nan if value is None else value for value in values])


def _features(folder: RunFolder, over: Pass, kind: str, batch: int) -> Path:
    return folder.path / "features" / over.name / f"{batch:05d}.{kind}.npy"


def _rounded(value: Any) -> Any:
    return np.round(np.asarray(value, float), DIGITS).tolist()
