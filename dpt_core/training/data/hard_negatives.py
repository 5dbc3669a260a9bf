"""The published table of hard negatives: captioned COCO images with similar texts and images.

A tab-separated file with a header; the columns `title` (caption), `filepath` (image), `neg_caption`
and `neg_image` are used, others are not. The last two hold a list each, as Python writes it. Fields
with tabs, line ends or quotation marks are quoted. `neg_image` lists image names; row numbers from
0, which the table of NegCLIP has in that place, are understood as well.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .datasets import MatchingDataset, MatchingRow
from .examples import DataError
from .images import ImageFolder
from .lines import RecordIndex, location, read_lines, shorten, text_field

COLUMNS = ("title", "filepath", "neg_caption", "neg_image")

DIALECT = "excel-tab"


class HardNegativeTable(MatchingDataset):
    """Image-text matching examples from the published table of hard negatives.

    The hard negative text and image are drawn from the row's lists, as published; an empty list is
    filled by another random row (:class:`MatchingDataset`). Rows are counted and their columns
    checked when the file is opened; the lists are checked when a row is read.

    Args:
        path: the `.tsv` file, UTF-8.
        images: folder that image names are relative to (published: COCO's `train2014`).
        size: side of the square images in pixels.
        seed: see :class:`MatchingDataset`.

    Raises:
        DataError: no file, no rows, or a column that is missing.
    """

    def __init__(self, path: str | Path, images: str | Path, size: int, seed: int = 0) -> None:
        self._columns, self._rows = _index(Path(path))
        self.images = ImageFolder(images, size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> MatchingRow:
        fields, where = self._fields(index), self._rows.where(index)
        captions = _list(fields["neg_caption"], "neg_caption", where)
        if wrong := [text for text in captions if not isinstance(text, str) or not text.strip()]:
            raise DataError(
                f"{where}: neg_caption must list texts that are not empty; got "
                f"{shorten(wrong[0])}. Remove it from the list"
            )
        return MatchingRow(
            text_field(fields, "filepath", where),
            text_field(fields, "title", where).strip(),
            tuple(self._negative_images(fields, where)),
            tuple(captions),
            where,
        )

    def named_images(self) -> Iterator[tuple[str, str]]:
        for index in range(len(self)):  # the captions' lists, slow to read, are left out
            fields, where = self._fields(index), self._rows.where(index)
            yield text_field(fields, "filepath", where), where
            for name in self._negative_images(fields, where):
                yield name, where

    def _fields(self, index: int) -> dict[str, str]:
        record = next(csv.reader(io.StringIO(self._rows.read(index), newline=""), DIALECT))
        return {name: record[column] for name, column in self._columns.items()}

    def _negative_images(self, fields: dict[str, str], where: str) -> Iterator[str]:
        for name in _list(fields["neg_image"], "neg_image", where):
            if isinstance(name, int) and 0 <= name < len(self):
                yield self._fields(name)["filepath"]
            elif isinstance(name, str) and name.strip():
                yield name
            else:
                raise DataError(
                    f"{where}: neg_image must list image names, or row numbers from 0 to "
                    f"{len(self) - 1}; got {shorten(name)}. Remove it from the list"
                )


def _index(path: Path) -> tuple[dict[str, int], RecordIndex]:
    """Which column is which, and where the rows are."""
    rows, columns, width = RecordIndex(path), None, 0
    for start, length, number, record in _records(path):
        if not record:
            continue
        if columns is None:
            columns, width = _header(record, location(path, number)), len(record)
        elif len(record) != width:
            raise DataError(
                f"{location(path, number)}: expected {width} columns separated by tabs, as in the "
                f"header; got {len(record)}. Look for a tab too many or too few, or a quotation "
                "mark that is never closed"
            )
        else:
            rows.add(start, length, number)
    if columns is None or not len(rows):
        raise DataError(f"{path}: expected a header and at least one row; got none. Add some")
    return columns, rows


def _records(path: Path) -> Iterator[tuple[int, int, int, list[str]]]:
    """Every record: byte offset, length in bytes, number of its first line, fields."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in read_lines(path):
            end = line.start + line.length
            yield line.text

    reader = csv.reader(lines(), DIALECT)
    while True:
        start, number = end, reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{location(path, number)}: expected tab-separated fields; got something else "
                f"({error}). Look for a quotation mark that is never closed"
            ) from error
        yield start, end - start, number, record


def _header(record: list[str], where: str) -> dict[str, int]:
    if missing := [name for name in COLUMNS if name not in record]:
        raise DataError(
            f"{where}: expected a header with the columns {', '.join(COLUMNS)}, separated by "
            f"tabs; {', '.join(missing)} missing from {shorten(record)}. Name the columns so"
        )
    return {name: record.index(name) for name in COLUMNS}


def _list(text: str, column: str, where: str) -> list[Any]:
    try:
        value = ast.literal_eval(text.strip() or "[]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise DataError(
            f"{where}: {column} must be a list as Python writes it, e.g. ['one', 'two']; got "
            f"{shorten(text)}. Write it with repr()"
        )
    return value
