"""Processes that were launched together, on GPUs or, where there is none, on the CPU."""

from __future__ import annotations

from typing import Any

import torch


def without_gpu() -> bool:
    """Whether this machine computes on its CPU. accelerate must be told so: otherwise processes
    that `torchrun` started there do not know of each other, and each does all the work."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def process_state(cpu: bool = False, **options: Any) -> Any:
    """accelerate's `PartialState` of this process.

    Args:
        cpu: compute on the CPU even where there is a GPU.
        options: of `PartialState`.
    """
    from accelerate import PartialState

    return PartialState(cpu=cpu or without_gpu(), **options)
