"""Figures of a benchmark as rows of cells, in Markdown and in LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .words import ALL

BREAK = "<br>"
"""Between a cell's lines."""

_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "–": "--",
    "±": r"$\pm$", "≥": r"$\geq$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A metric that every picture has a value of.

    Attributes:
        name: of the value in rows.
        title: heading.
        scale: what values are multiplied with to be shown.
        share: values are yes and no.
    """

    name: str
    title: str
    scale: float = 100.0
    share: bool = False


def metric_table(
    results: dict[str, Any], columns: Sequence[Column], group: str = ALL
) -> list[list[str]]:
    """Arms against metrics, the first row being the heading.

    Cells of a metric: its mean with its 95% interval; after a break, from the second arm on, the
    difference to the first arm with its interval. Of all pictures together also the metrics of
    whole sets.

    Args:
        results: of :func:`~dpt_core.evaluation.benchmark_report.summarise_benchmark`.
        columns: the metrics.
        group: a category, or all.
    """
    sets = results["sets"] if group == ALL else {}
    rows = [["", *(column.title for column in columns), *(each["title"] for each in sets.values())]]
    for place, arm in enumerate(results["arms"]):
        cells = [
            _cell(arm["groups"][group][column.name], column.scale, difference=place > 0)
            for column in columns
        ]
        rows.append([arm["title"], *cells, *(_set_cell(arm["sets"][name]) for name in sets)])
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table."""
    lines = [f"| {' | '.join(each.replace('|', chr(92) + '|') for each in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def latex_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a LaTeX table of the package booktabs; a cell's further lines go below."""
    lines = [r"\begin{tabular}{l" + "r" * (len(rows[0]) - 1) + "}", r"\toprule"]
    for place, row in enumerate(rows):
        split = [each.split(BREAK) for each in row]
        for line in range(max(map(len, split))):
            cells = (each[line].translate(_LATEX) if line < len(each) else "" for each in split)
            lines.append(" & ".join(cells) + r" \\")
        if not place:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(figures: dict[str, Any], scale: float, difference: bool) -> str:
    lines = [_interval(figures["mean"], scale, "")]
    if difference:
        lines.append(_interval(figures["difference"], scale, "+"))
    return BREAK.join(lines)


def _interval(estimate: dict[str, float], scale: float, sign: str) -> str:
    value, low, high = (f"{scale * estimate[key]:{sign}.2f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _set_cell(figure: dict[str, float | None]) -> str:
    deviation = figure.get("deviation")
    known = deviation is not None and not math.isnan(deviation)
    return f"{figure['value']:.2f}" + (f" ± {deviation:.2f}" if known else "")
