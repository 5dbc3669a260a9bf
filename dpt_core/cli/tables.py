"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from . import emit


def show(
    rows: Sequence[Sequence[str]], notes: Sequence[str], title: str | None = None, line_break="<br>"
) -> None:
    """Print rows of cells, the first being the heading, and what is to be said below them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    heading, *rest = rows
    table = Table(*heading, title=title, show_lines=True)
    for row in rest:
        table.add_row(*(escape(cell.replace(line_break, "\n")) for cell in row))
    Console().print(table)
    emit("\n".join(notes))
