"""`python -m dpt_core.cli`, which is what `accelerate launch -m` starts."""

from . import app

app(prog_name="dpt")
