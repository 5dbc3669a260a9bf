"""What a run found: figures, a table and a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arms import Arm
from .page import page
from .run import RunFolder, write_text
from .statistics import Estimate, paired_difference, separation, share
from .tables import Column
from .words import ALL, markdown, table


def summarise(folder: RunFolder, arms: Sequence[Arm], costs: dict[str, int]) -> dict[str, Any]:
    """The figures of a run, as JSON values.

    Args:
        folder: where the run is.
        arms: the first is what the others are compared with.
        costs: floating point operations per picture, by the arm's name.

    Returns:
        `arms`: per arm its cost and seconds per picture relative to the first arm's, and for each
        category and all together the share of pictures where the caption holds and its paired
        difference to the first arm; `separation`: how the score tells the first arm's right
        pictures from wrong ones.
    """
    rows = [sorted(folder.rows(arm), key=lambda row: row["index"]) for arm in arms]
    held = [np.array([row["holds"] for row in each], bool) for each in rows]
    categories = np.array([row["category"] for row in rows[0]])
    groups = {name: categories == name for name in dict.fromkeys(categories.tolist())}
    groups[ALL] = np.ones(len(categories), bool)
    base = folder.seconds(arms[0])
    found = []
    for arm, each in zip(arms, held, strict=True):
        seconds = folder.seconds(arm)
        found.append({
            "name": arm.name,
            "title": arm.title,
            "cost": costs[arm.name] / costs[arms[0].name],
            "time": seconds / base if seconds and base else None,
            "groups": {
                name: {
                    "share": share(each[chosen])._asdict(),
                    "difference": paired_difference(each[chosen], held[0][chosen])._asdict(),
                }
                for name, chosen in groups.items()
            },
        })  # fmt: skip
    scores = np.array([row["score"] for row in rows[0]])
    return {"arms": found, "separation": _known(separation(scores, held[0]))}


def write_report(
    folder: RunFolder, arms: Sequence[Arm], costs: dict[str, int], title: str, **more: Any
) -> dict[str, Any]:
    """Write what a finished run found: `rows.jsonl`, `results.json`, `table.md`, `chart.png` and
    `index.html`.

    Args:
        folder, arms, costs: see :func:`summarise`.
        title: of the page.
        more: further figures for `results.json`; with `adapter`, for the table too.

    Returns:
        The figures.
    """
    results = summarise(folder, arms, costs) | more
    rows = (json.dumps(row) + "\n" for arm in arms for row in folder.rows(arm))
    write_text(folder.path / "rows.jsonl", "".join(rows))
    write_text(folder.path / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder.path / "table.md", markdown(results))
    summary = [row[:-1] for row in table(results)]  # without times
    names = [name for name in results["arms"][0]["groups"] if name != ALL]
    write_text(folder.path / "index.html", page(
        folder, arms, summary, [Column("score", "score", scale=1)], title, categories=names
    ))  # fmt: skip
    chart(results, folder.path / "chart.png")
    return results


def chart(results: dict[str, Any], path: Path) -> None:
    """Draw the shares of every arm by category, with their intervals, as a PNG."""
    from matplotlib.figure import Figure

    names, arms = list(results["arms"][0]["groups"]), results["arms"]
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(ylabel="caption holds, %", ylim=(0, 100))
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        shares = [Estimate(**arm["groups"][name]["share"]) for name in names]
        values = 100 * np.array([each.value for each in shares])
        below = 100 * np.array([each.value - each.low for each in shares])
        above = 100 * np.array([each.high - each.value for each in shares])
        at = np.arange(len(names)) + (place - (len(arms) - 1) / 2) * width
        errors = np.clip((below, above), 0, None)
        axes.bar(at, values, 0.9 * width, yerr=errors, capsize=2, label=arm["title"])
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(len(arms), 4), frameon=False)
    figure.savefig(path)


def _known(value: float) -> float | None:
    """NaN is no JSON."""
    return None if math.isnan(value) else value
