"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from . import emit


def show(rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print rows of cells, the first being the heading, and what is to be said below them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..evaluation.tables import BREAK

    heading, *rest = rows
    table = Table(*heading, show_lines=True)
    for row in rest:
        table.add_row(*(escape(cell.replace(BREAK, "\n")) for cell in row))
    Console().print(table)
    for line in notes:
        emit(line)
