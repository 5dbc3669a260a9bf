"""Curves as text."""

from __future__ import annotations

import pytest

from dpt_core.plots import BARS, sparkline


def test_a_climb_uses_all_bars():
    assert sparkline([n / 10 for n in range(8)]) == BARS


@pytest.mark.parametrize(("values", "line"), [([], ""), ([0.5], "▄"), ([0.5, 0.5], "▄▄")])
def test_level(values, line):
    assert sparkline(values) == line


def test_small_changes_look_small():
    assert len(set(sparkline([0.50, 0.51, 0.50]))) <= 2
    assert set(sparkline([-0.9, 0.9])) == {BARS[0], BARS[-1]}
