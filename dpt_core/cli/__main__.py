"""`python -m dpt_core.cli`, which is what `accelerate launch -m` starts."""

from . import main

main()
