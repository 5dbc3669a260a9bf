"""How the demo model is drawn from and evaluated. Settings of a correction: `PRESETS` in
:mod:`dpt_core.correction`."""

from __future__ import annotations

STEPS = 20
GUIDANCE = 2.5

BATCH_SIZE = 32
PROMPTS = 504
"""Held-out prompts: 168 of each of the three categories."""

SWEEP_PROMPTS = 504

METRIC_TIMESTEPS = (100, 300, 500, 700, 900)
"""Noise levels over which the adapter's figures are averaged."""
