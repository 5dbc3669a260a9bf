"""A page that shows a run's pictures side by side, for a person to sort."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .arms import Arm
from .run import RunFolder
from .statistics import Estimate
from .words import percent, points

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
  figure { margin: 0; width: 136px; }
  img { width: 128px; height: 128px; object-fit: contain; border: 4px solid #c33; }
  .holds img { border-color: #2a2; }
  figcaption { font-size: 12px; color: #555; }
  .caption { width: 14rem; }
  .difference { color: #999; }
</style>
<h1>{{ title }}</h1>
<table>
  <tr><th></th>{% for name in groups %}<th>{{ name }}</th>{% endfor %}<th>cost</th></tr>
  {% for arm in results.arms %}
  <tr><th>{{ arm.title }}</th>
    {% for name in groups %}
    <td>{{ percent(arm.groups[name].share) }}
      {% if arm.name != results.arms[0].name %}
      <br>{{ points(arm.groups[name].difference) }}{% endif %}</td>
    {% endfor %}
    <td>{{ "%.2f"|format(arm.cost) }}×</td></tr>
  {% endfor %}
</table>
<nav>
  <label>Sort by <select id="key">
    <option value="index">prompt</option>
    {% for arm in arms %}
    <option value="score:{{ loop.index0 }}">score, {{ arm.title }}</option>
    {% endfor %}
    {% for arm in arms[1:] %}
    <option value="difference:{{ loop.index }}">score, {{ arm.title }} less {{ arms[0].title }}
    </option>
    {% endfor %}
  </select></label>
  <label><input type="checkbox" id="down"> downwards</label>
  <label>Show <select id="category">
    <option value="">all</option>
    {% for name in groups if name != "all" %}<option>{{ name }}</option>{% endfor %}
  </select></label>
  <label><input type="checkbox" id="changed"> only where verdicts differ</label>
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
    <td><figure class="{{ 'holds' if cell.holds }}">
      <img loading="lazy" src="{{ cell.picture }}" alt="">
      <figcaption>{{ "%.3f"|format(cell.score) }}
        {% if not loop.first %}<span class="difference">
          {{ "%+.3f"|format(cell.score - row.cells[0].score) }}</span>{% endif %}
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
  const [kind, arm] = find("key").value.split(":");
  if (kind === "index") return entry.index;
  return entry.scores[+arm] - (kind === "difference" ? entry.scores[0] : 0);
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
    folder: RunFolder, arms: Sequence[Arm], results: dict[str, Any], title: str = "DPT evaluation"
) -> str:
    """HTML that links the pictures of a run by their place in its folder.

    Args:
        folder: where the run is, and the page should be.
        arms: one column each; differences are to the first.
        results: of :func:`~dpt_core.evaluation.report.summarise`.
        title: heading.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "percent": lambda each: percent(Estimate(**each)),
        "points": lambda each: points(Estimate(**each)),
    }
    rows = zip(*(folder.rows(arm) for arm in arms), strict=True)
    return environment.from_string(TEMPLATE).render(
        title=title, arms=arms, results=results, groups=list(results["arms"][0]["groups"]),
        rows=(_prompt(folder, arms, each) for each in rows),
    )  # fmt: skip


def _prompt(
    folder: RunFolder, arms: Sequence[Arm], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One prompt in all arms."""
    cells = [
        row | {"picture": folder.picture(arm, row["index"]).relative_to(folder.path).as_posix()}
        for arm, row in zip(arms, rows, strict=True)
    ]
    return {
        **{key: rows[0][key] for key in ("index", "caption", "category")},
        "scores": json.dumps([row["score"] for row in rows]),
        "changed": len({row["holds"] for row in rows}) > 1,
        "cells": cells,
    }
