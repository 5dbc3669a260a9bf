"""Many processes that share a run's batches, as `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..distributed import process_state


@dataclass(frozen=True)
class Share:
    """Which batches are a process's.

    Batches go round by their number, whatever is already there, so that processes need not agree
    on anything while they run.

    Attributes:
        rank: of the process, from 0.
        of: how many processes there are.
    """

    rank: int = 0
    of: int = 1

    def has(self, batch: int) -> bool:
        """Whether a batch is this process's."""
        return batch % self.of == self.rank


ALONE = Share()


class Processes:
    """This process among those of the run; the only one where nothing was launched.

    Args:
        device: where to compute; of several `cuda` devices each process takes its own.

    Attributes:
        share: its batches.
        device: its device.
        main: whether it is the one that reports.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._state = process_state(device == "cpu")
        self.share = Share(self._state.process_index, self._state.num_processes)
        self.main = self._state.is_main_process
        self.device = device
        if self.share.of > 1 and device == "cuda":
            self.device = f"cuda:{self._state.local_process_index}"

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others do."""
        with self._state.main_process_first():
            yield

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self._state.wait_for_everyone()
