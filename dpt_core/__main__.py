"""`python -m dpt_core`, for `accelerate launch -m` and `torchrun -m`: the `dpt` command."""

from .cli import main

main()
