"""Interleaved, repeated timing, and the peak of memory."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Run = Callable[[], list[float]]
"""One repetition: seconds of each of its steps, the ones that warm up left out."""


class Clock:
    """Seconds, after the device has finished what it was given."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")

    def __call__(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def interleaved(
    runs: Mapping[str, Run], repeats: int, advance: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds per step of every run: all in turn, then again, so that drift hits all alike.

    Args:
        runs: by name; the first repetition of each is thrown away.
        repeats: repetitions that count.
        advance: called after each repetition.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            found = run()
            if repeat:
                seconds[name] += found
            advance()
    return seconds


def ratios(seconds: Mapping[str, list[float]], baseline: str = "plain") -> dict[str, float]:
    """Median seconds of each run over the baseline's."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {name: value / medians[baseline] for name, value in medians.items()}


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Bytes at the peak of a run, weights included: of the device, or of this process on a CPU."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    _forget_peak()
    run()
    return _peak()


def _forget_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    if clear.exists():  # elsewhere the peak is that of the process so far
        clear.write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
