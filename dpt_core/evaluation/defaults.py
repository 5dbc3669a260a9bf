"""Settings of the demo model's evaluation, in one place; light enough for the command line."""

from __future__ import annotations

STEPS = 20
GUIDANCE = 2.5

STRENGTH = 40.0
START_PERCENT = 0.0
END_PERCENT = 0.6
EVERY_N_STEPS = 1
RULE = "annealed"
INNER_STEPS = 1
MODE = "lagged"

BATCH_SIZE = 32
PROMPTS = 504
"""Held-out prompts: 168 of each of the three categories."""

SWEEP_PROMPTS = 504

METRIC_TIMESTEPS = (100, 300, 500, 700, 900)
"""Noise levels over which the adapter's figures are averaged."""
