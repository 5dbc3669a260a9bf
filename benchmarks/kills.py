"""Jobs killed at random moments: `python -m benchmarks.kills`.

Training, evaluation and saving run in processes that are killed with SIGKILL again and again. Every
job has to go on where it was and to end with the files of one that nobody killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from cyclopts import run as command
from rich.progress import Progress

from dpt_core.cli import app, emit

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

Job = Callable[[Path], None]


def training(folder: Path) -> None:
    """A small training run with many checkpoints."""
    from toy_training import CONFIG, Noise, Regression

    from dpt_core.training.loop import train

    train(Regression(), Noise(), replace(CONFIG, steps=60, save_every=3), folder)


def evaluation(folder: Path) -> None:
    """Pictures in two arms, judged, scored and reported."""
    words = "--prompts 6 --batch-size 2 --steps 2 --no-adapter --device cpu --arm base --arm fast"
    if app.run(["evaluate", "shapes", str(folder), *words.split()]):
        raise SystemExit(1)


def saving(folder: Path) -> None:
    """A checkpoint written over itself; whatever is there has to be whole."""
    from dpt_core.checkpoint import load_checkpoint, save_checkpoint
    from dpt_core.demo.load import load_demo

    path, demo = folder / "dpt.safetensors", load_demo().checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(30):
        save_checkpoint(path, demo)
        load_checkpoint(path)


JOBS: dict[str, tuple[Job, float, frozenset[str]]] = {
    "training": (training, 1.5, frozenset()),
    "evaluation": (evaluation, 6.0, frozenset({"timings.jsonl", "timings.json"})),
    "saving": (saving, 1.0, frozenset()),
}
"""What is killed, after how many seconds at most, and which of its files tell times."""


def survives(name: str, kills: int, folder: Path, advance: Callable[[], None]) -> list[str]:
    """Kill a job until it was killed often enough; what went wrong.

    Args:
        name: of a job.
        kills: how often.
        folder: where it works.
        advance: called after each kill.
    """
    job, longest, spared = JOBS[name]
    whole, rng, done, wrong = folder / "whole", random.Random(name), 0, []
    if failed := _ended(_start(job, whole)):
        return [f"{name} failed before anything was killed: {failed}"]
    wanted, number = _files(whole, spared), 0
    while done < kills:
        number += 1
        place = folder / str(number)
        while True:
            child = _start(job, place)
            if done < kills:
                time.sleep(rng.uniform(0.02, longest))
                os.kill(child, signal.SIGKILL)
                done += 1
                advance()
            if (status := _ended(child)) == 0:
                break
            if status > 0:
                wrong.append(f"{name} ended with {status} after {done} kills")
                break
        found = _files(place, spared)
        if other := [each for each in wanted | found if wanted.get(each) != found.get(each)]:
            wrong.append(f"{name}, {done} kills: other files than unbroken: {', '.join(other)}")
        shutil.rmtree(place)
    return wrong


def _start(job: Job, folder: Path) -> int:
    """The job in a process of its own; everything is imported already."""
    if child := os.fork():
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        job(folder)
        code = 0
    finally:
        os._exit(code)


def _ended(child: int) -> int:
    """Exit code; below 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _files(folder: Path, spared: frozenset[str]) -> dict[str, bytes]:
    """All that a job wrote, but for what tells times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in spared and ".partial" not in path.name
    }


def main(*, kills: int = 200) -> None:
    """Kill jobs at random moments.

    Args:
        kills: How often in all, a third of them each.
    """
    torch.set_num_threads(1)  # before the fork, which copies no other thread
    with tempfile.TemporaryDirectory() as folder, Progress() as bars:
        wrong = []
        for place, name in enumerate(JOBS):
            share = kills // len(JOBS) + (place < kills % len(JOBS))
            bar = bars.add_task(name, total=share)
            wrong += survives(name, share, Path(folder) / name, partial(bars.advance, bar))
    emit(f"{kills} kills, {len(wrong)} wrong")
    for line in wrong:
        emit(f"  {line}")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    command(main)
