"""Which settings of self-correction are worth their cost, on prompts kept for choosing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..correction import Correction
from ..generation import Sampling
from .arms import Arm

SHORT = {
    "strength": "strength",
    "start_percent": "start",
    "end_percent": "end",
    "every_n_steps": "every",
    "inner_steps": "inner",
}
"""Names in titles; other fields of :class:`~dpt_core.correction.Correction` keep theirs."""


def sweep_arms(
    sampling: Sampling, grid: Mapping[str, Sequence[Any]], lora: bool = False
) -> tuple[Arm, ...]:
    """The plain arm, then one per point of a grid.

    Args:
        sampling: steps and guidance, and in its correction, if it has one, what the grid does not
            say.
        grid: field of :class:`~dpt_core.correction.Correction` → values.
        lora: all arms with the LoRA.
    """
    plain = Arm("plain", "plain", sampling.plain, lora)
    default = sampling.correction or Correction()
    varied = [name for name, values in grid.items() if len(values) > 1] or list(grid)[:1]
    arms = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        correction = replace(default, **point)
        if not correction.strength:
            continue  # that is the plain arm
        words = [f"{SHORT.get(key, key)} {_short(point[key])}" for key in varied]
        name = "_".join(f"{SHORT.get(key, key)}-{_short(value)}" for key, value in point.items())
        arms[name] = Arm(name, ", ".join(words), replace(sampling, correction=correction), lora)
    return plain, *arms.values()


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def sweep_chart(results: dict[str, Any], path: Path) -> None:
    """Draw the share of pictures where the caption holds against the cost, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="cost, plain = 1", ylabel="caption holds, %")
    axes.set_prop_cycle(color=colormaps["turbo"](np.linspace(0.05, 0.95, len(results["arms"]))))
    for arm in results["arms"]:
        share = arm["groups"]["all"]["share"]
        value, low, high = (100 * share[key] for key in ("value", "low", "high"))
        errors = [[max(0, value - low)], [max(0, high - value)]]
        axes.errorbar(arm["cost"], value, yerr=errors, fmt="o", capsize=3, label=arm["title"])
    axes.grid(alpha=0.3)
    columns = 1 + len(results["arms"]) // 25
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=columns)
    figure.savefig(path)
