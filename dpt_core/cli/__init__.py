"""The `dpt` command. This module costs nothing, so that the first line comes at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .. import __version__

QUICK = {"--help", "-h", "--version"}
"""What is answered without a word about loading."""


def main(words: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code.

    Args:
        words: the command line after `dpt`; by default this process's.
    """
    words = sys.argv[1:] if words is None else list(words)
    if words == ["--version"]:
        emit(__version__)
        sys.exit(0)
    if words and not QUICK & set(words) and "torch" not in sys.modules:
        say("loading PyTorch …")
    from .app import run

    sys.exit(run(words))


def emit(line: str) -> None:
    """Write a line of a command's result."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Tell the person at the terminal what is going on; of several processes only the first."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"dpt: {line}\n")
        sys.stderr.flush()
