"""`python -m dpt_core`, for `accelerate launch -m dpt_core` and `torchrun -m dpt_core`: the `dpt` command."""

from .cli import app

app(prog_name="dpt")
