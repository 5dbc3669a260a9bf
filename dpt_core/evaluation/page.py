"""A page that shows a run's pictures side by side, for a person to sort and to compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import json_line
from .summary import Findings
from .tables import BREAK, NONE, Column

TEMPLATE = Path(__file__).with_name("page.html")

SIDE = 160
"""Of the pictures, in pixels."""


def page(
    found: Findings, summary: Sequence[Sequence[str]], title: str, categories: Sequence[str] = ()
) -> Iterator[str]:
    """HTML that links the pictures of a run by their path in its folder, piece by piece.

    Args:
        found: the run; the page should be in its folder. Each arm is a column; differences are to
            the first.
        summary: a table to begin with, as rows of cells.
        title: heading.
        categories: what a person can choose from.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["direction"] = _direction
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    rows = zip(*(found.rows(arm) for arm in found.arms), strict=True)
    return template.generate(
        title=title, arms=found.arms, summary=summary, line_break=BREAK, metrics=found.columns,
        side=SIDE, categories=categories, verdicts=found.source.judged,
        rows=(_prompt(found, each) for each in rows),
    )  # fmt: skip


def _prompt(found: Findings, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One prompt in all arms."""
    shown = [column for column in found.columns if not column.share]
    cells = []
    for arm, row in zip(found.arms, rows, strict=True):
        picture = found.folder.picture(arm, row["index"]).relative_to(found.folder.path)
        figures = [_figure(column, row, rows[0]) for column in shown]
        cells.append(row | {"picture": picture.as_posix(), "figures": figures})
    return {
        **{key: rows[0][key] for key in ("index", "caption", "category")},
        "scores": json_line([[row[column.name] for row in rows] for column in found.columns]),
        "changed": len({row.get("holds") for row in rows}) > 1,
        "cells": cells,
    }


def _figure(column: Column, row: dict[str, Any], base: dict[str, Any]) -> dict[str, str]:
    """A metric of a picture and its difference to the first arm's, in words."""
    value, first = row[column.name], base[column.name]
    if value is None or first is None:
        return {"title": column.title, "value": NONE, "difference": NONE}
    return {
        "title": column.title,
        "value": f"{value * column.scale:.2f}",
        "difference": f"{(value - first) * column.scale:+.2f}",
    }


def _direction(words: str) -> str:
    """A class by the sign that a difference begins with."""
    return {"+": "up", "-": "down"}.get(words[:1], "")
