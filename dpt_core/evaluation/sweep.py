"""Which settings of self-correction are worth their cost, on prompts kept for choosing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..correction import Correction
from ..generation import Sampling
from .arms import Arm


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
        words = [f"{_short(key)} {_value(point[key])}" for key in varied]
        name = "_".join(f"{_short(key)}-{_value(value)}" for key, value in point.items())
        arms[name] = Arm(name, ", ".join(words), replace(sampling, correction=correction), lora)
    return plain, *arms.values()


def _short(setting: str) -> str:
    """The first word of a setting's name: start, end, every, …"""
    return setting.split("_")[0]


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
