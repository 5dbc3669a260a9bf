"""`dpt demo`: the main job in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from . import emit
from .loading import chosen_device, demo_models
from .options import (
    CorrectionOptions,
    DemoArchitecture,
    DemoSamplingOptions,
    DemoWeights,
    Device,
    Natural,
    correction_of,
)

if TYPE_CHECKING:
    from ..evaluation.comparison import Side


def demo(
    prompt: str,
    /,
    *,
    out: Path = Path("demo.png"),
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=8))] = 4,
    seed: Natural = 0,
    correction: CorrectionOptions = CorrectionOptions(),
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    device: Device = "auto",
    weights: DemoWeights = None,
    architecture: DemoArchitecture = "unet",
) -> None:
    """Draw a prompt with and without DPT, from the same seeds, with the small model that ships.

    For example:

        dpt demo "a red circle left of a blue square"
        dpt demo "two green triangles and a red cross" --seed 7 --preset fast --out cross.png

    Args:
        prompt: One or two kinds of coloured shapes, "a red circle and two blue squares".
        out: The picture to write.
        count: Pictures of each kind.
        seed: Seed of the first picture.
    """
    from ..shapes.caption import parse

    caption = parse(prompt)  # first: the model knows no other world either
    settings = sampling.sampling(correction_of(correction))
    models = demo_models(weights, chosen_device(device), architecture)
    from ..evaluation.comparison import compare, draw_comparison

    sides = compare(models, prompt, caption, range(seed, seed + count), settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_comparison(prompt, sides).save(out)
    _show(sides)
    emit(f"comparison: {out.resolve()}")


def _show(sides: list[Side]) -> None:
    """A table: a row per seed, verdict and last score of each side."""
    from rich.console import Console
    from rich.table import Table

    held = [sum(verdict.holds for verdict in side.verdicts) for side in sides]
    table = Table("seed", title="does the caption hold?", show_footer=True)
    for side, number in zip(sides, held, strict=True):
        table.add_column(side.title, footer=f"{number} of {len(side.seeds)}")
        table.add_column("score", justify="right", footer=f"{side.curves[-1].mean():.3f}")
    for index, seed in enumerate(sides[0].seeds):
        cells = [str(seed)]
        for side in sides:
            verdict = side.verdicts[index]
            cells += [
                "[green]yes" if verdict.holds else f"[red]no[/]: {_shortly(verdict.failures)}",
                f"{side.curves[-1, index]:.3f}",
            ]
        table.add_row(*cells)
    Console().print(table)


def _shortly(failures: tuple[str, ...], most: int = 3) -> str:
    """The first failures, in a line."""
    more = [f"{len(failures) - most} more"] if len(failures) > most else []
    return "; ".join([*failures[:most], *more])
