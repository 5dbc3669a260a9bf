"""Processes that were launched together, on GPUs or, where there is none, on the CPU."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

PATIENCE = timedelta(days=7)
"""How long a process that is done waits for the others."""


def without_gpu() -> bool:
    """Whether this machine computes on its CPU. accelerate must be told so: otherwise processes
    that `torchrun` started there do not know of each other, and each does all the work."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def slow_bf16() -> bool:
    """Whether bf16 would be computed by a CPU without instructions for it: up to 50 times slower
    than float32."""
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return without_gpu() and not native


def process_state(cpu: bool = False) -> Any:
    """accelerate's `PartialState` of this process.

    Args:
        cpu: compute on the CPU even where there is a GPU.
    """
    from accelerate import PartialState

    return PartialState(cpu=cpu or without_gpu(), timeout=PATIENCE)
