"""Where a correction points, on the demo model."""

from __future__ import annotations

import numpy as np
import pytest

from dpt_core.demo.load import load_demo
from dpt_core.evaluation.direction import direction_rows, directions
from dpt_core.generation import Sampling, generate

PROMPTS, SEEDS = ["a red circle left of a blue square", "two green crosses"], [3, 4]


@pytest.fixture(scope="module")
def demo():
    return load_demo()


def test_the_prediction_follows_at_high_noise_and_goes_against_at_low(demo):
    pipeline, adapter = demo.pipeline, demo.checkpoint.adapter
    before = generate(pipeline, PROMPTS, SEEDS, Sampling(4, 2.5)).pictures
    found = directions(pipeline, adapter, PROMPTS, SEEDS, Sampling(4, 2.5))
    assert [each.level for each in found] == sorted((f.level for f in found), reverse=True)
    assert len(found) == 4 and found[0].cosine.number == 2
    assert found[0].cosine.value > 0.2 and found[-1].cosine.value < -0.1
    assert np.array_equal(generate(pipeline, PROMPTS, SEEDS, Sampling(4, 2.5)).pictures, before)
    heading, *rows = direction_rows(found)
    assert len(heading) == 3 and len(rows) == 4 and rows[-1][1].startswith("-")
