"""`dpt demo`: the main job in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..correction import Correction
from ..evaluation import defaults
from .common import (
    Device,
    End,
    Every,
    Guidance,
    InnerSteps,
    Mode,
    Rule,
    Start,
    Steps,
    Strength,
    Weights,
    demo_models,
    quiet,
    user_errors,
)

if TYPE_CHECKING:
    from ..evaluation.comparison import Side


def demo(
    prompt: Annotated[str, typer.Argument(help='For example "a red circle and a blue square".')],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("demo.png"),
    count: Annotated[int, typer.Option(min=1, max=8, help="Pictures of each kind.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    strength: Strength = Correction.strength,
    start: Start = Correction.start_percent,
    end: End = Correction.end_percent,
    every: Every = Correction.every_n_steps,
    rule: Rule = Correction.step,
    inner_steps: InnerSteps = Correction.inner_steps,
    mode: Mode = Correction.mode,
    steps: Steps = defaults.STEPS,
    guidance: Guidance = defaults.GUIDANCE,
    device: Device = "cpu",
    weights: Weights = None,
) -> None:
    """Draw a prompt with and without DPT, from the same seeds, with the small model that ships."""
    with user_errors():
        from ..shapes.caption import parse

        caption = parse(prompt)  # first: the model knows no other world either
        quiet()
        from ..evaluation.comparison import compare, draw_comparison
        from ..generation import Sampling

        correction = Correction(strength, start, end, every, mode, rule, inner_steps)
        sampling = Sampling(steps, guidance, correction)
        models = demo_models(weights, device)
        sides = compare(models, prompt, caption, range(seed, seed + count), sampling)
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_comparison(prompt, sides).save(out)
    _show(sides)
    typer.echo(f"comparison: {out.resolve()}")


def _show(sides: list[Side]) -> None:
    """A table: a row per seed, verdict and last score of each side."""
    from rich.console import Console
    from rich.table import Table

    held = [sum(verdict.holds for verdict in side.verdicts) for side in sides]
    table = Table("seed", title="does the caption hold?", show_footer=True)
    for side, number in zip(sides, held, strict=True):
        table.add_column(side.title, footer=f"{number} of {len(side.seeds)}")
        table.add_column("score", justify="right", footer=f"{side.curves[-1].mean():.3f}")
    for place, seed in enumerate(sides[0].seeds):
        cells = [str(seed)]
        for side in sides:
            verdict = side.verdicts[place]
            cells += [
                "[green]yes" if verdict.holds else f"[red]no[/]: {_shortly(verdict.failures)}",
                f"{side.curves[-1, place]:.3f}",
            ]
        table.add_row(*cells)
    Console().print(table)


def _shortly(failures: tuple[str, ...], most: int = 3) -> str:
    """The first failures, in a line."""
    more = [f"{len(failures) - most} more"] if len(failures) > most else []
    return "; ".join([*failures[:most], *more])
