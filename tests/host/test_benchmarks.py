"""The benchmarks that draw with the demo model's nodes, for a moment each."""

from __future__ import annotations

import math

import torch

from benchmarks.repair import mend
from benchmarks.template import PICTURES, compare


def test_what_a_first_run_shows():
    with torch.inference_mode():
        plain, ours = compare(1, "held-out")
    for seen in (plain, ours):
        assert len(seen.held) == len(seen.scores) == PICTURES
        assert all(math.isfinite(score) for score in seen.scores)
    assert plain.scores != ours.scores


def test_a_repair():
    with torch.inference_mode():
        found = mend(1, "held-out")
    assert len(found.right) == 1 and found.drawn >= 1
    assert found.drawing > 0 and found.repairing > 0
