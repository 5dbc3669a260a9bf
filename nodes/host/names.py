"""Names that people give to files and runs."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST = 128
"""Characters of a file's or folder's name, with room for what is put behind it."""


def inside(root: str | Path, name: str, what: str) -> Path:
    """Where something lies that people name, in a folder.

    Args:
        root: the folder.
        name: what was typed; `a/b` leads into a folder in it.
        what: the input, for messages.

    Raises:
        ValueError: the name is none, or leads out of the folder.
    """
    root, name = Path(root), name.strip()
    path = Path(os.path.normpath(root / name))
    long = any(len(part) > LONGEST for part in Path(name).parts)
    if not name or "\0" in name or root not in path.parents or long:
        raise ValueError(
            f"{what} must be a name in {root}, of up to {LONGEST} characters; got {name[:80]!r}"
        )
    return path
