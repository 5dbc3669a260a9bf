"""Who looks on while something is trained, and may stop it."""

from __future__ import annotations

from typing import Any


class Observer:
    """Whoever looks on; this one does not care."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So much is done of what is being done."""

    def stopped(self) -> bool:
        """Whether the run should stop here; it keeps what it has."""
        return False

    def drawn(self, picture: Any) -> None:
        """A report so far, a PIL image."""
