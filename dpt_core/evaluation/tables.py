"""Figures as rows of cells, in Markdown and in LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL = "all"
"""The group of all categories together."""

BREAK = "<br>"
"""Between a cell's lines."""

NONE = "–"
"""In place of a figure that there is not."""

_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "–": "--",
    "±": r"$\pm$", "≥": r"$\geq$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})  # fmt: skip

Figure = Mapping[str, Any]
"""An :class:`~dpt_core.evaluation.statistics.Estimate` as JSON values."""


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


def arm_table(
    results: dict[str, Any],
    columns: Sequence[Column],
    group: str = ALL,
    times: Mapping[str, float | None] | None = None,
) -> list[list[str]]:
    """Arms against metrics, the first row being the heading.

    Cells of a metric: its mean with its 95% interval; after a break, from the second arm on, the
    difference to the first arm with its interval. Of all pictures together also the first metric in
    every category, metrics of whole sets, and the cost relative to the first arm's.

    Args:
        results: of :func:`~dpt_core.evaluation.summary.summarise`.
        columns: the metrics.
        group: a category, or all.
        times: seconds per picture by the arm's name, for a last column.
    """
    headline, *others = columns
    shown = [group]
    if group == ALL and headline.share:
        shown = list(results["arms"][0]["groups"])
    sets = results["sets"] if group == ALL else {}
    named = len(shown) > 1  # the corner says of what the categories are
    heading = [headline.title if named else "", *(shown if named else [headline.title])]
    heading += [each.title for each in others] + [each["title"] for each in sets.values()]
    heading += ["cost"] * (group == ALL) + ["time"] * (times is not None)
    rows = [heading]
    base = (times or {}).get(results["arms"][0]["name"])
    for index, arm in enumerate(results["arms"]):
        cells = [(headline, arm["groups"][name]) for name in shown]
        cells += [(column, arm["groups"][group]) for column in others]
        row = [arm["title"]]
        row += [_cell(figures[column.name], column, index > 0) for column, figures in cells]
        row += [_set_cell(arm["sets"][name]) for name in sets]
        row += [f"{arm['cost']:.2f}×"] * (group == ALL)
        if times is not None:
            row.append(_ratio(times.get(arm["name"]), base))
        rows.append(row)
    return rows


def reader_table(results: dict[str, Any], titles: Mapping[str, str]) -> list[list[str]]:
    """How scores tell right pictures from wrong ones at each timestep; empty where it is not known.

    Args:
        results: of :func:`~dpt_core.evaluation.summary.summarise`.
        titles: of its readers.
    """
    if not (known := results.get("readers")):
        return []
    rows = [["AUC, timestep", *(str(level) for level in next(iter(known.values())))]]
    for name, title in titles.items():
        cells = []
        for figures in known[name].values():
            lines = [interval(figures["auc"], "{:.3f}")]
            if len(rows) == 1:  # the adapter, and what it is above the baseline
                lines.append(interval(figures["gain"], "{:+.3f}"))
            cells.append(BREAK.join(lines))
        rows.append([title, *cells])
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table."""
    lines = [f"| {' | '.join(each.replace('|', chr(92) + '|') for each in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def latex_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a LaTeX table of the package booktabs; a cell's further lines go below."""
    lines = [r"\begin{tabular}{l" + "r" * (len(rows[0]) - 1) + "}", r"\toprule"]
    for index, row in enumerate(rows):
        split = [each.split(BREAK) for each in row]
        for line in range(max(map(len, split))):
            cells = (each[line].translate(_LATEX) if line < len(each) else "" for each in split)
            lines.append(" & ".join(cells) + r" \\")
        if not index:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def percent(figure: Figure | None) -> str:
    """A share in words, "62.1% [58, 66]"."""
    if not _known(figure):
        return NONE
    low, high = (f"{100 * figure[end]:.0f}" for end in ("low", "high"))
    return f"{100 * figure['value']:.1f}% [{low}, {high}]"


def points(figure: Figure) -> str:
    """A difference of shares in words, "+3.0 [+1.2, +5.1]"."""
    return interval(figure, "{:+.1f}", 100)


def interval(figure: Figure, shape: str, scale: float = 1) -> str:
    """A figure and its interval in a format of numbers."""
    if not _known(figure):
        return NONE
    value, low, high = (shape.format(scale * figure[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _cell(figures: Mapping[str, Figure], column: Column, difference: bool) -> str:
    if column.share:
        lines = [percent(figures["mean"])] + [points(figures["difference"])] * difference
    else:
        lines = [interval(figures["mean"], "{:.2f}", column.scale)]
        lines += [interval(figures["difference"], "{:+.2f}", column.scale)] * difference
    return BREAK.join(lines)


def _set_cell(figure: Figure) -> str:
    if "low" in figure:
        return interval(figure, "{:.3f}")
    deviation = figure.get("deviation")
    known = deviation is not None and not math.isnan(deviation)
    return f"{figure['value']:.2f}" + (f" ± {deviation:.2f}" if known else "")


def _ratio(seconds: float | None, base: float | None) -> str:
    return f"{seconds / base:.2f}×" if seconds and base else NONE


def _known(figure: Figure | None) -> bool:
    return figure is not None and figure["value"] is not None and not math.isnan(figure["value"])
