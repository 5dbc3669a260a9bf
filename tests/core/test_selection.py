"""Which pictures are best."""

from __future__ import annotations

import math
import random

import pytest

from dpt_core.selection import ranked, select_best


def test_best_first_and_the_earlier_of_equals():
    assert select_best([0.1, 0.5, 0.3, 0.5], 3) == [1, 3, 2]
    assert ranked([0.2] * 6) == list(range(6))


def test_minimum():
    assert select_best([0.1, 0.5, 0.3], 3, 0.3) == [1, 2]
    assert select_best([0.1, 0.5, 0.3], 3, 0.6) == []
    assert select_best([-0.4, -2.0], 5) == [0, 1]


def test_scores_that_are_no_numbers_never_pass():
    assert ranked([math.nan, 0.1, math.nan, -math.inf]) == [1, 3, 0, 2]
    assert select_best([math.nan, 0.1, math.nan], 3) == [1]


def test_against_sorting():
    rng = random.Random(0)
    for _ in range(100):
        scores = [rng.choice([0.0, 0.1, 0.2, rng.random()]) for _ in range(9)]
        expected = sorted(enumerate(scores), key=lambda each: (-each[1], each[0]))
        expected = [index for index, score in expected if score >= 0.1][:4]
        assert select_best(scores, 4, 0.1) == expected


def test_count():
    assert select_best([], 1) == []
    with pytest.raises(ValueError, match="at least 1; got 0"):
        select_best([0.5], 0)
