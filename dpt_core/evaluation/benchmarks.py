"""Prompts of named benchmarks, read where they lie and only as they are needed.

The files are their authors': CC-500 and ABC-6K of StructureDiffusion (ICLR 2023), COCO-NSS1K of
LayoutLLM-T2I (ACM MM 2023). Every line is a prompt, repeated ones included (CC-500 has 602 lines,
588 of them distinct).
"""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from ..fingerprints import file_digest
from ..training.data.examples import DataError
from ..training.data.lines import RecordIndex, read_lines, require_file, text_field
from . import defaults
from .prompts import Prompt, Source
from .shapes import HELD_OUT, shapes_source

CC_500, ABC_6K, COCO_NSS1K, SHAPES = SOURCES = ("cc-500", "abc-6k", "coco-nss1k", "shapes")

FILES = {CC_500: "CC-500.txt", ABC_6K: "ABC-6K.txt", COCO_NSS1K: "COCO-NSS1K.json"}

NSS1K = {"numerical": 155, "spatial": 200, "semantic": 200, "mixed": 188, "null": 200}
"""Categories of COCO-NSS1K and their sizes, in the order of its file.

The file names no categories: they are read off its order. The published sizes fit it: image ids
rise through entries 0 to 154 and 555 to 742 and nowhere else; 0 to 154 hold number words, 155 to
354 words of place, 555 to 742 both, the last 200 neither. Only between spatial and semantic, at
355, is the cut not sharp to the entry.
"""

TWINS = ("caption", "swapped")
"""Categories of ABC-6K: a caption, then the same with its colours swapped."""


class TextLines(Sequence[str]):
    """The lines of a text file that are not empty; 24 bytes of memory each.

    Args:
        path: the file, UTF-8.

    Raises:
        DataError: no such file, or not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._index = RecordIndex(path)
        for line in read_lines(path):
            if line.text.strip():
                self._index.add(line.start, line.length, line.number)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> str:
        return self._index.read(range(len(self))[index]).strip()


@dataclass(frozen=True)
class FilePrompts(Sequence[Prompt]):
    """Prompts of a file; a slice reads its own lines and no others.

    Attributes:
        source: name of the benchmark, or of the file.
        texts: the prompts.
        category: from a prompt's index to what its figures are grouped by.
        group: from a prompt's index to a number; prompts that share it are drawn from one seed.
        seed: from which every prompt's own is derived.
        count: how many of the prompts, from the first one.
    """

    source: str
    texts: Sequence[str]
    category: Callable[[int], str]
    group: Callable[[int], int]
    seed: int
    count: int

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        indices = range(self.count)[index]
        return (
            self._prompt(indices) if isinstance(indices, int) else list(map(self._prompt, indices))
        )

    def _prompt(self, index: int) -> Prompt:
        rng = random.Random(f"{self.source}-{self.seed}-{self.group(index)}")
        return Prompt(index, self.texts[index], self.category(index), rng.randrange(2**31))


def open_prompts(
    source: str, path: str | Path | None = None, seed: int = 0, limit: int | None = None
) -> Source:
    """Open a benchmark's prompts.

    Args:
        source: one of :data:`SOURCES`, or a text file with a prompt per line.
        path: the benchmark's file, or the folder where it lies under its published name; not used
            for the shapes world and text files.
        seed: others give other pictures. The shapes world's prompts have fixed seeds.
        limit: only so many prompts, from the first one; of the shapes world by default 504.

    Raises:
        ValueError: no such source, or a file that is missing or not as published.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit must be at least 1; got {limit}")
    if source == SHAPES:
        return shapes_source(HELD_OUT, limit or defaults.PROMPTS)
    file = _file(source, path)
    opened = _open(source, file)
    number = len(opened.texts)
    if not number:
        raise DataError(f"{file}: expected a prompt per line; got none. Add some")
    prompts = FilePrompts(**vars(opened), seed=seed, count=min(number, limit or number))
    about = {"source": prompts.source, "count": len(prompts), "seed": seed}
    about["file"] = file_digest(file)
    return Source(prompts, about)


@dataclass(frozen=True)
class _Opened:
    source: str
    texts: Sequence[str]
    category: Callable[[int], str]
    group: Callable[[int], int] = int


def _file(source: str, path: str | Path | None) -> Path:
    """Where a source's prompts are."""
    if source not in FILES:
        if path is not None:
            raise ValueError(
                f"a path belongs to one of {', '.join(FILES)}; {source!r} is none of them"
            )
        if not Path(source).is_file():
            raise ValueError(
                f"prompts must be one of {', '.join(SOURCES)} or a text file; got {source!r}"
            )
        return Path(source)
    if path is None:
        raise ValueError(f"{source} is not part of this package: give the path of {FILES[source]}")
    file = Path(path) / FILES[source] if Path(path).is_dir() else Path(path)
    require_file(file)
    return file


def _open(source: str, file: Path) -> _Opened:
    if source == COCO_NSS1K:
        return _nss1k(file)
    texts = TextLines(file)
    if source == ABC_6K:
        if len(texts) % 2:
            raise DataError(
                f"{file}: expected captions each followed by its swapped twin, an even number of "
                f"lines; got {len(texts)}. Use the published file"
            )
        return _Opened(source, texts, lambda index: TWINS[index % 2], lambda index: index // 2)
    name = source if source in FILES else file.stem
    return _Opened(name, texts, lambda index: name)


def _nss1k(file: Path) -> _Opened:
    """COCO-NSS1K; of its entries only the captions are kept."""
    try:
        entries = json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected JSON; got something else ({error})") from error
    number = sum(NSS1K.values())
    if not isinstance(entries, list) or len(entries) != number:
        raise DataError(
            f"{file}: expected the {number} entries of COCO-NSS1K, whose order says their "
            "category; got something else. Use the published file"
        )
    captions = [
        text_field(entry, "captions", f"{file}: [{index}]").strip()
        for index, entry in enumerate(entries)
    ]
    names, ends = list(NSS1K), list(itertools.accumulate(NSS1K.values()))
    return _Opened(COCO_NSS1K, captions, lambda index: names[bisect.bisect(ends, index)])
