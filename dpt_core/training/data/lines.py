"""Text files with a record per line: found by byte offset, so that none is kept in memory."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .examples import DataError


class Line(NamedTuple):
    """A line of a text file.

    Attributes:
        start: byte offset in the file.
        length: in bytes, line end included.
        number: from 1.
        text: what it says.
    """

    start: int
    length: int
    number: int
    text: str


class RecordIndex:
    """Where the records of a text file are; 24 bytes of memory each.

    Args:
        path: the file, UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places = array("q")

    def add(self, start: int, length: int, number: int) -> None:
        """Note a record of `length` bytes from offset `start`, whose first line is `number`."""
        self._places.extend((start, length, number))

    def __len__(self) -> int:
        return len(self._places) // 3

    def where(self, index: int) -> str:
        """File and line of a record, as messages name it."""
        return location(self.path, self._places[3 * index + 2])

    def read(self, index: int) -> str:
        """The text of a record.

        Raises:
            DataError: the file is gone, or no longer what it was.
        """
        start, length, number = self._places[3 * index : 3 * index + 3]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                raw = file.read(length)
        except OSError as error:
            raise DataError(f"{self.path} can no longer be read ({error}): put it back") from error
        return _decode(raw, self.path, number)


def read_lines(path: Path) -> Iterator[Line]:
    """Read a UTF-8 text file line by line; a byte order mark is skipped.

    Raises:
        DataError: no such file, or not UTF-8.
    """
    require_file(path)
    start = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield Line(start, len(raw), number, _decode(raw, path, number))
            start += len(raw)


def require_file(path: Path) -> None:
    """Raise a :class:`DataError` unless there is a file at the path."""
    if not path.is_file():
        raise DataError(f"expected a data file at {path}; there is none. Correct the path")


def location(path: Path, line: int) -> str:
    """A file and line as messages name them, e.g. `train.jsonl:17`."""
    return f"{path}:{line}"


def text_field(entry: dict[str, Any], key: str, where: str) -> str:
    """A text that must be there.

    Raises:
        DataError: missing, empty, or no text.
    """
    if key not in entry:
        raise DataError(f'{where}: expected a "{key}"; got only {_keys(entry)}. Add it')
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f'{where}: "{key}" must be a text that is not empty; got {shorten(value)}. Fill it in, '
            "or remove the entry"
        )
    return value


def numbers_field(value: Any, name: str, shape: str, where: str) -> tuple[float, ...]:
    """Finite numbers, as many as `shape` (e.g. `[x, y, w, h]`) names.

    Raises:
        DataError: anything else.
    """
    count = shape.count(",") + 1
    good = (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in value)
        and all(abs(part) < 1e9 for part in value)
    )
    if not good:
        raise DataError(
            f'{where}: "{name}" must be {count} finite numbers {shape}; got {shorten(value)}. '
            "Correct it"
        )
    return tuple(value)


def shorten(value: Any) -> str:
    """A value as messages show it, never longer than a line."""
    return reprlib.repr(value)


def _keys(entry: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in entry) or "an empty object"


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{location(path, number)}: expected UTF-8 text; got byte 0x{raw[error.start]:02x} at "
            f"column {error.start + 1}. Save the file as UTF-8"
        ) from error
