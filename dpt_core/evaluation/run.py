"""Draw prompts in every arm, into a folder that survives being interrupted.

A batch is written whole: first its pictures, then, under its final name in one step, its rows. What
has rows is done; anything else is drawn again, from the same seeds in the same company, and comes
out the same. For the same reason several processes that share the batches end with the files that
one alone would write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from .. import METHOD_VERSION
from ..files import json_line, write_json, write_text
from ..png import save_png
from .arms import Arm, Drawn, draw
from .models import Measure, Models
from .processes import ALONE, Share
from .prompts import Prompt

Judge = Callable[[np.ndarray, Prompt], dict[str, Any]]
"""From a picture `[H, W, 3]` uint8 and its prompt to what a row says about it."""

Item = TypeVar("Item")


class Task(Protocol):
    """Work that goes batch by batch, such as an arm: a dataclass with a name.

    Attributes:
        name: for files, unique in a run; with slashes, folders.
    """

    @property
    def name(self) -> str: ...


AnyTask = TypeVar("AnyTask", bound=Task)

SETTINGS = "settings.json"
TIMINGS = "timings.jsonl"
DIGITS = 6
"""Decimals of scores in rows."""


class RunFolder:
    """Where a run keeps its pictures and rows.

    Args:
        path: the folder; made where there is none.
        settings: what all arms share, as JSON values.
        arms: the arms, or other tasks; others may have been run before and stay.

    Raises:
        ValueError: the folder holds a run with other settings, or of another version of the
            method.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], arms: Sequence[Task]) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings | {"method": METHOD_VERSION}))
        self.path.mkdir(parents=True, exist_ok=True)
        known = self._read_settings()
        wanted = {arm.name: json.loads(json.dumps(asdict(arm))) for arm in arms}
        old = {"settings": known.get("settings", self.settings), "arms": known.get("arms", {})}
        _refuse_change(old["settings"], self.settings, self.path, "")
        for name in wanted.keys() & old["arms"].keys():
            _refuse_change(old["arms"][name], wanted[name], self.path, f"arm {name}: ")
        merged = {"settings": old["settings"], "arms": old["arms"] | wanted}
        if merged != known:  # so that of many processes only the first one writes
            write_json(self.path / SETTINGS, merged)

    def picture(self, arm: Arm, index: int) -> Path:
        """Where the picture of a prompt is."""
        return self.path / "pictures" / arm.name / f"{index:05d}.png"

    def part(self, arm: Task, batch: int) -> Path:
        """Where the rows of a batch are, once it is done."""
        return self.path / "parts" / arm.name / f"{batch:05d}.jsonl"

    def write(
        self, arm: Arm, batch: int, rows: Sequence[dict[str, Any]], pictures: np.ndarray
    ) -> None:
        """Keep a batch; each picture says how it was made in its PNG texts prompt, seed and dpt.

        Args:
            arm, batch: whose.
            rows: one per picture, with its `index`, `caption` and `seed`.
            pictures: `[N, H, W, 3]` uint8.
        """
        how = json.dumps({"arm": asdict(arm), "run": self.settings})
        for row, picture in zip(rows, pictures, strict=True):
            about = {"prompt": row["caption"], "seed": str(row["seed"]), "dpt": how}
            save_png(picture, self.picture(arm, row["index"]), about)
        self.write_rows(arm, batch, rows)

    def write_rows(self, arm: Task, batch: int, rows: Iterable[dict[str, Any]]) -> None:
        """Keep the rows of a batch, with which it is done."""
        write_text(self.part(arm, batch), map(json_line, rows), durable=False)

    def has(self, arm: Task, batch: int) -> bool:
        """Whether a batch is done; a machine that stopped may leave an empty file."""
        part = self.part(arm, batch)
        return part.exists() and part.stat().st_size > 0

    def rows(self, arm: Task) -> Iterator[dict[str, Any]]:
        """Rows of an arm's finished batches, by prompt."""
        for part in sorted(self.part(arm, 0).parent.glob("*.jsonl")):
            with part.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def note_time(self, arm: Arm, batch: int, pictures: int, seconds: float) -> None:
        """Keep how long a batch took to draw."""
        note = {"arm": arm.name, "batch": batch, "pictures": pictures, "seconds": seconds}
        with (self.path / TIMINGS).open("a", encoding="utf-8") as file:
            file.write(json_line(note))

    def seconds(self, arm: Arm) -> float | None:
        """Median seconds per picture over an arm's batches, or None where none is known."""
        path = self.path / TIMINGS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        times = [
            note["seconds"] / note["pictures"]
            for note in filter(None, map(_whole, lines))
            if note["arm"] == arm.name
        ]
        return float(np.median(times)) if times else None

    def _read_settings(self) -> dict[str, Any]:
        path = self.path / SETTINGS
        if not path.exists():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}): choose another folder") from error


def run(
    models: Models,
    arms: Sequence[Arm],
    prompts: Sequence[Prompt],
    folder: RunFolder,
    judge: Judge,
    measure: Measure,
    batch_size: int,
    progress: Callable[[Arm, int], None] = lambda arm, pictures: None,
    share: Share = ALONE,
) -> None:
    """Draw what is not there yet.

    Args:
        models: what draws.
        arms, prompts: every prompt is drawn in every arm.
        folder: where to.
        judge: what a row says about a picture besides its score.
        measure: how pictures are scored.
        batch_size: pictures drawn together.
        progress: called with the arm and the number of pictures that were added.
        share: the batches that are this process's.
    """
    for arm, batch, chosen in missing(arms, prompts, folder, batch_size, share):
        texts = [prompt.text for prompt in chosen]
        start = time.perf_counter()
        drawn = draw(models, arm, texts, [prompt.seed for prompt in chosen], measure)
        seconds = time.perf_counter() - start
        scores = drawn.scores
        if scores is None:
            scores = models.score(drawn.pictures, texts, measure)
        rows = [
            _row(arm, prompt, drawn, index, float(scores[index]))
            | judge(drawn.pictures[index], prompt)
            for index, prompt in enumerate(chosen)
        ]
        folder.write(arm, batch, rows, drawn.pictures)
        folder.note_time(arm, batch, len(rows), seconds)
        progress(arm, len(rows))


def missing(
    arms: Sequence[AnyTask],
    prompts: Sequence[Item],
    folder: RunFolder,
    batch_size: int,
    share: Share = ALONE,
) -> Iterator[tuple[AnyTask, int, Sequence[Item]]]:
    """The batches that are not done: arm, number of the batch, its prompts.

    Args:
        arms, folder, batch_size, share: as in :func:`run`.
        prompts: what the batches consist of; only slices are read, one at a time.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1; got {batch_size}")
    for arm in arms:
        for batch, start in enumerate(range(0, len(prompts), batch_size)):
            if share.has(batch) and not folder.has(arm, batch):
                yield arm, batch, prompts[start : start + batch_size]


def _row(arm: Arm, prompt: Prompt, drawn: Drawn, index: int, score: float) -> dict[str, Any]:
    """What is known of one picture before anyone judges it."""
    row = {
        "arm": arm.name,
        "index": prompt.index,
        "caption": prompt.text,
        "category": prompt.category,
        "seed": drawn.seeds[index],
        "score": round(score, DIGITS),
        "curve": _rounded(drawn.curves[:, index]),
    }
    if drawn.candidates is not None:
        row["candidates"] = _rounded(drawn.candidates[:, index])
    return row


def _whole(line: str) -> dict[str, Any] | None:
    """A line of JSON, or None where a kill tore it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def _refuse_change(old: dict, new: dict, path: Path, what: str) -> None:
    # In JSON a tuple is a list.
    old, new = (_flat(json.loads(json.dumps(each))) for each in (old, new))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if "method" in changed:
        raise ValueError(
            f"{path} holds a run of version {old.get('method')} of the method, this is version "
            f"{new['method']}, which gives other results: choose another folder"
        )
    if changed:
        listed = ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in changed)
        raise ValueError(
            f"{path} holds a run with other settings ({what}{listed}): choose another folder, or "
            "go on with the old settings"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as one level, "sampling.strength"."""
    flat = {}
    for key, value in settings.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): each for name, each in inner.items()}
    return flat
