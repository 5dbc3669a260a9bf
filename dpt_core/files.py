"""Files that are written complete or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PARTIAL = ".partial"
"""What is added to the name of a file that is not complete. The next attempt overwrites it, so a
kill leaves at most one such file beside each that was being written."""


@contextmanager
def complete(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Write a file under another name in its folder, then give it its name in one step.

    One process at a time may write a file. Where the block raises, the file stays as it was.

    Args:
        path: the file; its folder is made where there is none.
        durable: also when the machine stops. Waiting for the disk takes some milliseconds, too
            long for files that come by the thousand and can be made again.

    Yields:
        Where to write; it has no suffix that tells the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        if durable:
            with partial.open("r+b") as file:  # on the disk before the name says so
                os.fsync(file.fileno())
        partial.replace(path)
    except Exception:  # a full disk shows itself as late as in the last two
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes; see :func:`complete`."""
    with complete(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str | Iterable[str], durable: bool = True) -> None:
    """Write UTF-8, one text or its pieces as they come; see :func:`complete`."""
    opening = {"encoding": "utf-8", "newline": "\n"}
    with complete(path, durable) as partial, partial.open("w", **opening) as file:
        file.writelines([text] if isinstance(text, str) else text)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON for people and programs; see :func:`json_line` and :func:`complete`."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """A value as one line of JSON; numbers that are not finite, which JSON lacks, become null."""
    return json.dumps(finite(value), allow_nan=False) + "\n"


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    durable: bool = True,
) -> None:
    """Write a .safetensors file, of tensors on any device and laid out in any way; see
    :func:`complete`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        with complete(path, durable) as partial:
            save_file(plain, partial, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:  # a full disk, for example
        raise OSError(f"{path} cannot be written ({error})") from error


def finite(value: Any) -> Any:
    """A value of JSON's kinds with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
