"""Figures in words: Markdown for the terminal, for `table.md` and for the README."""

from __future__ import annotations

from typing import Any

from .statistics import Estimate

ALL = "all"
"""The group of all categories together."""

ADAPTER_ROWS = {
    "text": "right text above hard negative",
    "image": "right image above hard negative",
    "phrases": "phrase found, IoU ≥ 0.5",
    "phrases_generalised": "phrase found, generalised IoU ≥ 0.5",
}


def table(results: dict[str, Any], line_break: str = "<br>") -> list[list[str]]:
    """The figures as rows of cells, the first row being the heading.

    Per arm and category: the share of pictures where the caption holds with its 95% interval; after
    a line break the difference to the first arm in points, with its interval.
    """
    names = list(results["arms"][0]["groups"])
    rows = [["", *names, "cost", "time"]]
    for place, arm in enumerate(results["arms"]):
        row = [arm["title"]]
        for name in names:
            group = arm["groups"][name]
            cell = percent(Estimate(**group["share"]))
            if place:
                cell += line_break + points(Estimate(**group["difference"]))
            row.append(cell)
        time = "–" if arm["time"] is None else f"{arm['time']:.2f}×"
        rows.append([*row, f"{arm['cost']:.2f}×", time])
    return rows


def notes(results: dict[str, Any]) -> list[str]:
    """What is to be said below the table."""
    number = results["arms"][0]["groups"][ALL]["share"]["number"]
    lines = [
        f"{number} prompts, the same seeds in every arm. In brackets: 95% intervals. Cost: "
        "floating point operations; time: seconds per picture; both relative to the first row."
    ]
    if results["separation"] is not None:
        auc = results["separation"]
        lines.append(
            f"The score tells the first row's right pictures from wrong ones: AUC {auc:.3f}."
        )
    return lines


def markdown(results: dict[str, Any]) -> str:
    """All figures as Markdown."""
    lines = [_line(row) for row in table(results)]
    lines.insert(1, _rule(lines[0]))
    text = "\n".join(lines + [""] + notes(results)) + "\n"
    return text + "\n" + adapter_table(results["adapter"]) if "adapter" in results else text


def percent(estimate: Estimate) -> str:
    """A share in words, "62.1% [58, 66]"."""
    low, high = (f"{100 * end:.0f}" for end in (estimate.low, estimate.high))
    return f"{100 * estimate.value:.1f}% [{low}, {high}]"


def points(estimate: Estimate) -> str:
    """A difference of shares in words, "+3.0 [+1.2, +5.1]"."""
    low, high = (f"{100 * end:+.1f}" for end in (estimate.low, estimate.high))
    return f"{100 * estimate.value:+.1f} [{low}, {high}]"


def adapter_table(adapter: dict[str, dict[str, Any]]) -> str:
    """The adapter's figures as a Markdown table.

    Args:
        adapter: name of the model that the adapter reads → figures of
            :func:`~dpt_core.evaluation.adapter_metrics.adapter_metrics`.
    """
    heading = ["adapter"]
    for name, figures in adapter.items():
        heading += [f"{name}, timestep {figures['timestep']}",
                    f"mean of {len(figures['timesteps'])} timesteps"]  # fmt: skip
    lines = [_line(heading), _rule(_line(heading))]
    for key, title in ADAPTER_ROWS.items():
        cells = [title]
        for figures in adapter.values():
            mean = figures[key]["mean"]
            cells.append(percent(Estimate(**figures[key]["at"])))
            cells.append(
                percent(Estimate(**mean)) if isinstance(mean, dict) else f"{100 * mean:.1f}%"
            )
        lines.append(_line(cells))
    scenes = next(iter(adapter.values()))["scenes"]
    return "\n".join([*lines, "", f"{scenes} held-out scenes, each with its hard negative."]) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(heading: str) -> str:
    return "|" + "---|" * (heading.count("|") - 1)
