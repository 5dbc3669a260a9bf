"""`dpt evaluate`: figures, and the pictures behind them.

On many processes: `accelerate launch --num_processes 8 -m dpt_core.cli evaluate generation …`.
"""

from __future__ import annotations

from cyclopts import App

from .direction import direction
from .discrimination import discrimination
from .explain import explain
from .generation import generation
from .shapes import shapes
from .sweep import sweep

app = App("evaluate", help="Measure what the method is worth.")
for command in (shapes, sweep, direction, generation, discrimination, explain):
    app.command(command)
