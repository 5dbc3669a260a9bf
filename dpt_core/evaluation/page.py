"""A page that shows a run's pictures side by side, for a person to sort."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .arms import Arm
from .run import RunFolder
from .tables import BREAK, Column

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
  body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; }
  nav { position: sticky; top: 0; background: #fff; padding: .6rem 0; }
  table { border-collapse: collapse; }
  td, th { padding: .3rem .6rem; text-align: left; vertical-align: top; }
  #prompts th { position: sticky; top: 3rem; background: #fff; }
  figure { margin: 0; width: {{ side + 8 }}px; }
  img { width: {{ side }}px; height: {{ side }}px; object-fit: contain; border: 4px solid #eee; }
  .fails img { border-color: #c33; }
  .holds img { border-color: #2a2; }
  figcaption { font-size: 12px; color: #555; }
  .caption { width: 14rem; }
  .difference { color: #999; }
</style>
<h1>{{ title }}</h1>
<table>
  {% for row in summary %}
  <tr>{% for cell in row %}
    {% set tag = "th" if loop.first or loop.index0 and not row[0] else "td" %}
    <{{ tag }}>{% for line in cell.split(line_break) %}
      {% if not loop.first %}<br>{% endif %}{{ line }}{% endfor %}</{{ tag }}>
  {% endfor %}</tr>
  {% endfor %}
</table>
<nav>
  <label>Sort by <select id="key">
    <option value="index">prompt</option>
    {% for metric in metrics %}{% set outer = loop.index0 %}
    <optgroup label="{{ metric.title }}">
    {% for arm in arms %}
    <option value="score:{{ outer }}:{{ loop.index0 }}">{{ metric.title }}, {{ arm.title }}</option>
    {% endfor %}
    {% for arm in arms[1:] %}
    <option value="difference:{{ outer }}:{{ loop.index }}">{{ metric.title }},
      {{ arm.title }} less {{ arms[0].title }}</option>
    {% endfor %}
    </optgroup>
    {% endfor %}
  </select></label>
  <label><input type="checkbox" id="down"> downwards</label>
  <label>Show <select id="category">
    <option value="">all</option>
    {% for name in categories %}<option>{{ name }}</option>{% endfor %}
  </select></label>
  <label{% if not verdicts %} hidden{% endif %}><input type="checkbox" id="changed">
    only where verdicts differ</label>
  <span id="count"></span>
</nav>
<table id="prompts">
  <thead><tr><th>prompt</th>{% for arm in arms %}<th>{{ arm.title }}</th>{% endfor %}</tr></thead>
  <tbody>
  {% for row in rows %}
  <tr data-index="{{ row.index }}" data-category="{{ row.category }}"
      data-scores="{{ row.scores }}" data-changed="{{ row.changed|int }}">
    <td class="caption">{{ row.caption }}</td>
    {% for cell in row.cells %}
    {% set first = loop.first %}
    <td><figure class="{{ {true: 'holds', false: 'fails'}.get(cell.holds, '') }}">
      <a href="{{ cell.picture }}"><img loading="lazy" src="{{ cell.picture }}" alt=""></a>
      <figcaption>{% for metric in metrics if not metric.share %}
        {% if not loop.first %}<br>{% endif %}
        {% if metrics|length > 1 %}{{ metric.title }}{% endif %}
        {{ "%.3f"|format(cell[metric.name] * metric.scale) }}
        {% if not first %}<span class="difference">
          {{ "%+.3f"|format((cell[metric.name] - row.cells[0][metric.name]) * metric.scale) }}
        </span>{% endif %}{% endfor %}
        {% for failure in cell.failures %}<br>{{ failure }}{% endfor %}</figcaption>
    </figure></td>
    {% endfor %}
  </tr>
  {% endfor %}
  </tbody>
</table>
<script>
const find = (id) => document.getElementById(id);
const body = document.querySelector("#prompts tbody");
const rows = [...body.rows].map((row) => (
  { row, index: +row.dataset.index, scores: JSON.parse(row.dataset.scores) }));
function value(entry) {
  const [kind, metric, arm] = find("key").value.split(":");
  if (kind === "index") return entry.index;
  const scores = entry.scores[+metric];
  return scores[+arm] - (kind === "difference" ? scores[0] : 0);
}
function show() {
  const sign = find("down").checked ? -1 : 1;
  rows.sort((a, b) => sign * (value(a) - value(b)) || a.index - b.index);
  let count = 0;
  for (const { row } of rows) {
    const category = find("category").value;
    row.hidden = (category && row.dataset.category !== category)
      || (find("changed").checked && row.dataset.changed === "0");
    count += !row.hidden;
    body.append(row);
  }
  find("count").textContent = count + " prompts";
}
for (const id of ["key", "down", "category", "changed"]) find(id).onchange = show;
show();
</script>
</html>
"""


def page(
    folder: RunFolder,
    arms: Sequence[Arm],
    summary: Sequence[Sequence[str]],
    metrics: Sequence[Column],
    title: str = "DPT evaluation",
    *,
    categories: Sequence[str] = (),
    rows: Callable[[Arm], Iterator[dict[str, Any]]] | None = None,
    side: int = 128,
) -> Iterator[str]:
    """HTML that links the pictures of a run by their place in its folder, piece by piece.

    Args:
        folder: where the run is, and the page should be.
        arms: one column each; differences are to the first.
        summary: a table to begin with, as rows of cells.
        metrics: what pictures show and are sorted by; columns of rows.
        title: heading.
        categories: what a person can choose from.
        rows: of an arm, in order of the prompts; by default those of the folder.
        side: of the pictures, in pixels.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    of_arms = zip(*((rows or folder.rows)(arm) for arm in arms), strict=True)
    first = next((rows or folder.rows)(arms[0]), {})
    return environment.from_string(TEMPLATE).generate(
        title=title, arms=arms, summary=summary, line_break=BREAK, metrics=metrics, side=side,
        categories=categories, verdicts="holds" in first,
        rows=(_prompt(folder, arms, metrics, each) for each in of_arms),
    )  # fmt: skip


def _prompt(
    folder: RunFolder,
    arms: Sequence[Arm],
    metrics: Sequence[Column],
    rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """One prompt in all arms."""
    cells = [
        row | {"picture": folder.picture(arm, row["index"]).relative_to(folder.path).as_posix()}
        for arm, row in zip(arms, rows, strict=True)
    ]
    return {
        **{key: rows[0][key] for key in ("index", "caption", "category")},
        "scores": json.dumps([[row[metric.name] for row in rows] for metric in metrics]),
        "changed": len({row.get("holds") for row in rows}) > 1,
        "cells": cells,
    }
