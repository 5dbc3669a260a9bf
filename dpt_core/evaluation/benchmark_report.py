"""What a benchmark found: figures, tables and a page. None of its files holds times."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arms import Arm
from .metrics.inception import frechet_distance, inception_score
from .page import page
from .passes import REFERENCE, Pass, column, features
from .run import RunFolder, write_text
from .statistics import average, paired_difference, share
from .tables import Column, latex_table, markdown_table, metric_table
from .words import ALL

FID, IS = "fid", "inception_score"
SETS = {FID: "FID ↓", IS: "IS ↑"}
"""Metrics of sets of pictures."""

NOTE = (
    "{number} prompts, the same seeds in every arm. In brackets: 95% intervals; second lines: "
    "difference to the first row, prompt by prompt."
)


@dataclass(frozen=True)
class Scored:
    """A metric and where its values are.

    Attributes:
        column: the metric.
        passes: arm's name → pass; empty where the arms' own rows have the values.
    """

    column: Column
    passes: Mapping[str, Pass] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """A finished benchmark.

    Attributes:
        folder: where it is.
        arms: the first is what the others are compared with.
        about: the prompts, as :class:`~dpt_core.evaluation.benchmarks.Source` tells them.
        scored: metrics of single pictures.
        inception: arm's name, and the reference where there is one → pass; empty without.
        skipped: metrics that were left out, one line each.
    """

    folder: RunFolder
    arms: Sequence[Arm]
    about: dict[str, Any]
    scored: Sequence[Scored]
    inception: Mapping[str, Pass] = field(default_factory=dict)
    skipped: Sequence[str] = ()

    @property
    def columns(self) -> list[Column]:
        """The metrics of single pictures."""
        return [each.column for each in self.scored]

    def rows(self, arm: Arm) -> Iterator[dict[str, Any]]:
        """An arm's rows with all metrics, one at a time."""
        passes = dict.fromkeys(each.passes[arm.name] for each in self.scored if each.passes)
        sources = [self.folder.rows(arm), *(self.folder.rows(each) for each in passes)]
        for parts in zip(*sources, strict=True):
            yield {key: value for part in parts for key, value in part.items()}


def summarise_benchmark(found: Findings) -> dict[str, Any]:
    """The figures of a benchmark, as JSON values.

    Returns:
        `prompts`, `skipped`; `arms`: per arm its `groups`, category or all → metric → mean and
        paired difference to the first arm, and its `sets`, metric of sets → value; `sets`: what
        the latter are called.
    """
    folder, arms = found.folder, found.arms
    categories = column(folder, arms[0], "category")
    groups = {name: categories == name for name in dict.fromkeys(categories.tolist())}
    groups = (groups if len(groups) > 1 else {}) | {ALL: np.ones(len(categories), bool)}
    values = {
        (arm.name, each.column.name): column(
            folder, each.passes.get(arm.name, arm), each.column.name
        )
        for arm in arms
        for each in found.scored
    }
    sets = {arm.name: _sets(found, arm) for arm in arms}
    names = dict.fromkeys(key for each in sets.values() for key in each)
    return {
        "prompts": found.about,
        "skipped": list(found.skipped),
        "sets": {key: {"title": SETS[key]} for key in names},
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "groups": {
                    name: {
                        each.name: _figures(
                            each, values[arm.name, each.name][chosen],
                            values[arms[0].name, each.name][chosen],
                        )
                        for each in found.columns
                    }
                    for name, chosen in groups.items()
                },
                "sets": sets[arm.name],
            }
            for arm in arms
        ],
    }  # fmt: skip


def write_benchmark(found: Findings, title: str) -> dict[str, Any]:
    """Write `rows.jsonl`, `results.json`, `table.md`, `table.tex` and `index.html`, and how long
    pictures took to `timings.json`.

    Args:
        found: what was found.
        title: of the page.

    Returns:
        The figures.
    """
    results, path = summarise_benchmark(found), found.folder.path
    rows = (json.dumps(row) + "\n" for arm in found.arms for row in found.rows(arm))
    write_text(path / "rows.jsonl", rows)
    write_text(path / "results.json", json.dumps(results, indent=2) + "\n")
    groups = [ALL, *(name for name in results["arms"][0]["groups"] if name != ALL)]
    tables = {name: metric_table(results, found.columns, name) for name in groups}
    write_text(path / "table.md", "\n".join([
        *(_headed(f"## {name}\n\n", name, markdown_table(rows)) for name, rows in tables.items()),
        "\n".join([*notes(results), *found.skipped]) + "\n",
    ]))  # fmt: skip
    write_text(path / "table.tex", "\n".join(
        _headed(f"% {name}\n", name, latex_table(rows)) for name, rows in tables.items()
    ))  # fmt: skip
    write_text(path / "index.html", page(
        found.folder, found.arms, tables[ALL], found.columns, title,
        categories=groups[1:], rows=found.rows, side=192,
    ))  # fmt: skip
    times = {arm.name: found.folder.seconds(arm) for arm in found.arms}
    write_text(path / "timings.json", json.dumps({"seconds per picture": times}, indent=2) + "\n")
    return results


def notes(results: dict[str, Any]) -> list[str]:
    """What is to be said below the tables."""
    lines = [NOTE.format(number=results["prompts"]["count"])]
    if results["sets"]:
        lines.append("FID and IS have no interval; IS: mean and deviation of its splits.")
    return lines


def _headed(heading: str, name: str, text: str) -> str:
    return text if name == ALL else heading + text


def _figures(metric: Column, values: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    mean = share(values) if metric.share else average(values)
    difference = paired_difference(values, base)
    return {"mean": mean._asdict(), "difference": difference._asdict()}


def _sets(found: Findings, arm: Arm) -> dict[str, dict[str, float | None]]:
    """Metrics of an arm's pictures as a set."""
    if not found.inception:
        return {}
    folder, over, figures = found.folder, found.inception[arm.name], {}
    if real := found.inception.get(REFERENCE):
        distance = frechet_distance(
            features(folder, real, "features"), features(folder, over, "features")
        )
        figures[FID] = {"value": distance}
    score, deviation = inception_score(features(folder, over, "logits"))
    figures[IS] = {"value": score, "deviation": None if math.isnan(deviation) else deviation}
    return figures
