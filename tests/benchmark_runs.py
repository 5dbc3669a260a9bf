"""What the tests of benchmarks share: prompts, commands, kills, and what a run leaves."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from dpt_core.cli import main
from dpt_core.demo.load import CHECKPOINT

TEXTS = ["a red circle", "two blue square and a red circle", "a square left of a circle"]


class Killed(BaseException):
    """The end of a process, as far as it can be played."""


def invoke(*words: object, code: int = 0) -> str:
    """What a command says, in one line; other exceptions than its exit pass through."""
    said, wide = io.StringIO(), mock.patch.dict(os.environ, COLUMNS="300")
    with redirect_stdout(said), redirect_stderr(said), wide, pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == code, said.getvalue()
    return " ".join(said.getvalue().replace("│", " ").split())


def in_two_processes(*words: object) -> str:
    """What a script or `-m` module prints where two processes share the work."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    tests, threads = Path(__file__).parent, torch.get_num_threads()
    paths = os.pathsep.join(map(str, (tests.parent, tests)))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    done = subprocess.run(
        [*launch, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(path: Path) -> dict[str, bytes]:
    """Everything in a run's folder but how long it took."""
    timings = {"timings.jsonl", "timings.json"}
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in timings
    }


def load_demo_of(folder: Path) -> tuple[Any, Any]:
    """Pipeline and checkpoint of a model directory."""
    from diffusers import DiffusionPipeline

    from dpt_core.checkpoint import load_checkpoint

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, load_checkpoint(folder / CHECKPOINT)
