"""Curves as text."""

from __future__ import annotations

import pytest

from dpt_core.plots import BARS, drawn, sparkline


def test_a_climb_uses_all_bars():
    assert sparkline([n / 10 for n in range(8)]) == BARS


@pytest.mark.parametrize(("values", "line"), [([], ""), ([0.5], "▄"), ([0.5, 0.5], "▄▄")])
def test_level(values, line):
    assert sparkline(values) == line


def test_small_changes_look_small():
    assert len(set(sparkline([0.50, 0.51, 0.50]))) <= 2
    assert set(sparkline([-0.9, 0.9])) == {BARS[0], BARS[-1]}


def test_what_cannot_be_drawn_is_blank(caplog):
    def broken(*given):
        raise ImportError("no matplotlib here")

    assert drawn(broken, 1, 2).shape == (64, 64, 3)
    assert drawn(broken, instead="the picture itself") == "the picture itself"
    assert drawn(sparkline, [0.5]) == "▄"
    assert "ImportError: no matplotlib here" in caplog.text
