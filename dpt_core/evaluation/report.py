"""The files of an evaluation: figures, tables, charts and a page. Times are in one of them only, so
that the others are the same whoever and how many computed them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import complete, json_line, write_json, write_text
from .discrimination import Answers
from .page import page
from .separation import READERS
from .summary import DISTANCE, FRECHET, IS, Findings, summarise
from .tables import ALL, Column, arm_table, latex_table, markdown_table, reader_table

TIMES = "timings.json"

NOTE = (
    "{number} prompts, the same seeds in every arm. In brackets: 95% intervals; second lines: "
    "difference to the first row, prompt by prompt. Cost: floating point operations relative to "
    "the first row."
)


def write_report(found: Findings, title: str, adapter: Answers | None = None) -> dict[str, Any]:
    """Write `rows.jsonl`, `results.json`, `table.md`, `table.tex`, `chart.png` and `index.html`,
    and how long pictures took to `timings.json`.

    Args:
        found: what was found.
        title: of the page.
        adapter: what the adapter itself can do, where that was asked.

    Returns:
        The figures.
    """
    results, path = summarise(found), found.folder.path
    rows = (json_line(row) for arm in found.arms for row in found.rows(arm))
    write_text(path / "rows.jsonl", rows)
    write_json(path / "results.json", results)
    headings = {"": arm_table(results, found.columns)}
    if reading := reader_table(results, READERS):
        headings["The first row's pictures, read at several noise levels"] = reading
    if adapter is not None:
        results["adapter"] = adapter.results
        headings[f"The adapter: {adapter.notes[0]}"] = adapter.rows
    categories = [name for name in results["arms"][0]["groups"] if name != ALL]
    headings |= {name: arm_table(results, found.columns, name) for name in categories}
    write_text(path / "table.md", "\n".join([
        *(f"## {name}\n\n" * bool(name) + markdown_table(rows) for name, rows in headings.items()),
        "\n".join([*notes(results), *found.skipped]) + "\n",
    ]))  # fmt: skip
    write_text(path / "table.tex", "\n".join(
        f"% {name}\n" * bool(name) + latex_table(rows) for name, rows in headings.items()
    ))  # fmt: skip
    write_text(path / "index.html", page(found, headings[""], title, categories))
    chart(results, found.columns[0], path / "chart.png")
    write_json(path / TIMES, {"seconds per picture": times_of(found)})
    return results


def times_of(found: Findings) -> dict[str, float | None]:
    """Seconds per picture by the arm's name; None where they are not known."""
    return {arm.name: found.folder.seconds(arm) for arm in found.arms}


def notes(results: dict[str, Any]) -> list[str]:
    """What is to be said below the tables."""
    lines = [NOTE.format(number=results["prompts"]["count"])]
    if results.get("separation") is not None:
        lines.append(
            "The score tells the first row's right pictures from wrong ones: AUC "
            f"{results['separation']:.3f}."
        )
    if "readers" in results:
        lines.append(
            "AUC: how often a right picture scores above a wrong one; second lines: the adapter's "
            "less that of the model's own denoising error."
        )
    if DISTANCE in results["sets"]:
        lines.append(
            "Between seeds: root mean square difference of two pictures of a prompt at 32 pixels."
        )
    if FRECHET in results["sets"]:
        lines.append(
            "To rendered scenes: Fréchet distance of the autoencoder's features to those of right "
            "pictures, rendered; compare only distances of equally many pictures."
        )
    if IS in results["sets"]:
        lines.append("FID and IS have no interval; IS: mean and deviation of its splits.")
    return lines


def chart(results: dict[str, Any], column: Column, path: Path) -> None:
    """Draw the means of a metric of every arm by category, with their intervals, as a PNG."""
    names, arms = list(results["arms"][0]["groups"]), results["arms"]
    figure = _figure(10, 4.5)
    unit = {"ylabel": f"{column.title}, %", "ylim": (0, 100)} if column.share else {
        "ylabel": column.title
    }  # fmt: skip
    axes = figure.add_subplot(**unit)
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        values, errors = _bars([arm["groups"][name][column.name]["mean"] for name in names], column)
        at = np.arange(len(names)) + (index - (len(arms) - 1) / 2) * width
        axes.bar(at, values, 0.9 * width, yerr=errors, capsize=2, label=arm["title"])
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    longest = max(len(arm["title"]) for arm in arms)
    columns = max(1, min(len(arms), 110 // (longest + 6)))  # as many as fit into the width
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    _save(figure, path)


def cost_chart(results: dict[str, Any], column: Column, path: Path) -> None:
    """Draw the mean of a metric of every arm against its cost, as a PNG."""
    from matplotlib import colormaps

    figure = _figure(9, 6)
    axes = figure.add_subplot(xlabel="cost, plain = 1", ylabel=f"{column.title}, %")
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(results["arms"])))
    for arm, colour in zip(results["arms"], colours, strict=True):
        values, errors = _bars([arm["groups"][ALL][column.name]["mean"]], column)
        axes.errorbar(
            arm["cost"], values, yerr=errors, fmt="o", capsize=3, label=arm["title"], color=colour
        )
    axes.grid(alpha=0.3)
    columns = 1 + len(results["arms"]) // 25
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=columns)
    _save(figure, path)


def _bars(means: Sequence[dict[str, float]], column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Values `[N]` and how far their intervals reach down and up `[2, N]`, as they are shown."""
    value, low, high = (
        column.scale * np.array([mean[key] for mean in means], float)
        for key in ("value", "low", "high")
    )
    return value, np.clip((value - low, high - value), 0, None)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with complete(path) as partial:
        figure.savefig(partial, format="png")
