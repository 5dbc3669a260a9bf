"""`dpt train demo`: the demo model's own training."""

from __future__ import annotations

from pathlib import Path

from ..options import DemoArchitecture
from .options import carry_out


def demo(
    folder: Path, /, *, until: str = "export", architecture: DemoArchitecture = "unet"
) -> None:
    """Remake the demo model: some hours on two CPU cores, in as many runs as you like.

    For example:

        dpt train demo runs/demo
        dpt train demo runs/transformer --architecture dit

    Args:
        folder: Where the runs live. Run again to go on.
        until: Last stage to run.
    """
    from ...demo.making import make_demo

    carry_out(make_demo, folder, until, None, architecture)
