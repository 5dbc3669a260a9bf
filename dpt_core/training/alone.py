"""One process on one device in float32, as the training loop asks for it: no accelerate needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from .config import LoopConfig


class Alone:
    """What :mod:`.loop` uses of accelerate's `Accelerator`, for a run inside another program.

    Args:
        device: where the task lies and batches go.
        config: of the run.

    Raises:
        ValueError: the settings ask for what only accelerate does.
    """

    scaler = None
    process_index, num_processes, is_main_process = 0, 1, True
    sync_gradients = True

    def __init__(self, device: torch.device, config: LoopConfig) -> None:
        if config.accumulate != 1 or config.precision != "no":
            raise ValueError(
                'a run without accelerate has accumulate 1 and precision "no"; got '
                f"{config.accumulate} and {config.precision!r}"
            )
        self.device = device

    def prepare(self, *parts: Any) -> tuple[Any, ...]:
        return parts

    def accumulate(self, task: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def main_process_first(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        nn.utils.clip_grad_norm_(parameters, norm)

    def reduce(self, values: Any, reduction: str) -> Any:
        return values

    def unwrap_model(self, task: nn.Module) -> nn.Module:
        return task

    def wait_for_everyone(self) -> None:
        """There is nobody else."""


def to_device(batch: Any, device: torch.device) -> Any:
    """Nested tensors on a device; what is none stays."""
    if torch.is_tensor(batch):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(each, device) for key, each in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(each, device) for each in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(each, device) for each in batch)
    return batch
