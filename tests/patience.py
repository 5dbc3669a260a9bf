"""How long an answer may take."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE, HANG = 5.0, 60
"""Seconds of computing, and seconds by the clock of a busy machine, after which an answer counts as
none."""


@contextmanager
def in_time() -> Iterator[None]:
    """The block ends soon, in whatever way."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer in {HANG} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANG)
    start = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - start < PATIENCE
