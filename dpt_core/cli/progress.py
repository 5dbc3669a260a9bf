"""A progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    what: str, total: float, done: float = 0, shown: bool = True
) -> Iterator[Callable[[float], None]]:
    """A bar with the time that is left.

    Args:
        what: is done.
        total: how much there is of it.
        done: how much is there already.
        shown: no bar otherwise, as in all processes but one.

    Yields:
        What counts an amount as done.

    Raises:
        KeyboardInterrupt: Ctrl-C, with how to go on.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
               TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=600, disable=not shown) as bar:
        task = bar.add_task(what, total=total, completed=done)
        try:
            yield lambda amount: bar.advance(task, amount)
        except KeyboardInterrupt:
            bar.stop()
            raise KeyboardInterrupt("stopped; run the same command again to go on") from None
