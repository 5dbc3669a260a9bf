"""`dpt evaluate`: figures, and the pictures behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..correction import Correction
from ..evaluation import defaults
from .common import (
    MODE,
    RULE,
    Device,
    Draws,
    End,
    Every,
    Guidance,
    InnerSteps,
    Mode,
    Rule,
    Start,
    Steps,
    Strength,
    Timestep,
    Weights,
    demo_models,
    quiet,
    user_errors,
)
from .progress import progress

if TYPE_CHECKING:
    from ..evaluation.arms import Arm, Models
    from ..evaluation.processes import Processes
    from ..evaluation.shapes import Prepared

app = typer.Typer(no_args_is_help=True, help="Measure what the method is worth.")

Folder = Annotated[
    Path, typer.Argument(help="Where pictures and figures go; run again to go on after a stop.")
]
Split = Annotated[str, typer.Option(help="held-out, or tuning for choosing settings.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures drawn together.")]
ScoreLora = Annotated[
    bool, typer.Option(help="Score pictures with the LoRA, with which the adapter was tuned.")
]


@app.command()
def shapes(
    folder: Folder,
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts.")] = defaults.PROMPTS,
    split: Split = "held-out",
    strength: Strength = Correction.strength,
    start: Start = Correction.start_percent,
    end: End = Correction.end_percent,
    every: Every = Correction.every_n_steps,
    rule: Rule = Correction.step,
    inner_steps: InnerSteps = Correction.inner_steps,
    mode: Mode = Correction.mode,
    best_of: Annotated[
        int, typer.Option(min=0, help="Candidates to choose from; 0: at the cost of correction.")
    ] = 0,
    arm: Annotated[
        list[str],
        typer.Option(help="base, self-correction, lora, both, best-of: repeat; else all of them."),
    ] = [],  # noqa: B006
    steps: Steps = defaults.STEPS,
    guidance: Guidance = defaults.GUIDANCE,
    timestep: Timestep = 500,
    draws: Draws = 4,
    score_lora: ScoreLora = True,
    adapter: Annotated[bool, typer.Option(help="Also test matching and grounding.")] = True,
    batch_size: Batch = defaults.BATCH_SIZE,
    device: Device = "cpu",
    weights: Weights = None,
) -> None:
    """Compare base, self-correction, LoRA, both and best of N in the shapes world."""
    with user_errors():
        quiet()
        from ..evaluation.arms import Measure
        from ..evaluation.processes import Processes
        from ..evaluation.report import write_report
        from ..evaluation.shapes import Comparison, prepare
        from ..generation import Sampling

        correction = Correction(strength, start, end, every, mode, rule, inner_steps)
        sampling = Sampling(steps, guidance, correction)
        measure = Measure(timestep, draws, lora=score_lora)
        comparison = Comparison(split, prompts, sampling, measure, best_of, batch_size, tuple(arm))
        processes = Processes(device)
        models = demo_models(weights, processes.device)
        with processes.main_first():
            prepared = prepare(models, folder, comparison)
        _draw(models, prepared, comparison, processes)
        if not processes.main:
            return
        more = {}
        if adapter:
            more["adapter"] = _probe(models, folder, prompts, timestep, batch_size)
        results = write_report(
            prepared.folder, prepared.arms, prepared.costs, "DPT in the shapes world", **more
        )
    _show(results, folder)


@app.command()
def sweep(
    folder: Folder,
    strength: Annotated[list[float], typer.Option(min=0, help="Repeat for several.")],
    start: Annotated[list[float], typer.Option(min=0, max=1)] = [Correction.start_percent],  # noqa: B006
    end: Annotated[list[float], typer.Option(min=0, max=1)] = [Correction.end_percent],  # noqa: B006
    every: Annotated[list[int], typer.Option(min=1)] = [Correction.every_n_steps],  # noqa: B006
    rule: Annotated[list[str], RULE] = [Correction.step],  # noqa: B006
    inner_steps: Annotated[list[int], typer.Option(min=1)] = [Correction.inner_steps],  # noqa: B006
    mode: Annotated[list[str], MODE] = [Correction.mode],  # noqa: B006
    lora: Annotated[bool, typer.Option(help="All arms with the LoRA.")] = False,
    prompts: Annotated[int, typer.Option(min=1)] = defaults.SWEEP_PROMPTS,
    split: Split = "tuning",
    steps: Steps = defaults.STEPS,
    guidance: Guidance = defaults.GUIDANCE,
    timestep: Timestep = 500,
    draws: Draws = 4,
    score_lora: ScoreLora = True,
    batch_size: Batch = defaults.BATCH_SIZE,
    device: Device = "cpu",
    weights: Weights = None,
) -> None:
    """Try every combination of self-correction's settings, on prompts kept for choosing."""
    with user_errors():
        quiet()
        from ..evaluation.arms import Measure
        from ..evaluation.processes import Processes
        from ..evaluation.prompts import shapes_prompts
        from ..evaluation.report import write_report
        from ..evaluation.shapes import Comparison, open_run
        from ..evaluation.sweep import sweep_arms, sweep_chart
        from ..generation import Sampling

        sampling = Sampling(steps, guidance)
        grid = {
            "step": rule, "strength": strength, "start_percent": start, "end_percent": end,
            "every_n_steps": every, "inner_steps": inner_steps, "mode": mode,
        }  # fmt: skip
        arms = sweep_arms(sampling, grid, lora)
        measure = Measure(timestep, draws, lora=score_lora)
        comparison = Comparison(split, prompts, sampling, measure, 0, batch_size)
        processes = Processes(device)
        models = demo_models(weights, processes.device)
        chosen = shapes_prompts(split, prompts)
        with processes.main_first():
            prepared = open_run(models, folder, arms, chosen, comparison)
        _draw(models, prepared, comparison, processes)
        if not processes.main:
            return
        results = write_report(prepared.folder, arms, prepared.costs, "Self-correction, swept")
        sweep_chart(results, folder / "sweep.png")
    _show(results, folder)


def _draw(models: Models, prepared: Prepared, comparison: Any, processes: Processes) -> None:
    """Draw what is missing, each process its share; the progress bar counts operations."""
    from ..evaluation.run import missing
    from ..evaluation.shapes import carry_out

    (folder, arms, prompts, costs), share = prepared, processes.share
    left = sum(
        costs[arm.name] * len(batch)
        for arm, _, batch in missing(arms, prompts, folder, comparison.batch_size, share)
    )
    total = sum(costs.values()) * len(prompts) // share.of
    with progress("drawing", total, max(total - left, 0), shown=processes.main) as advance:

        def count(arm: Arm, pictures: int) -> None:
            advance(costs[arm.name] * pictures)

        carry_out(models, prepared, comparison, count, share)
    processes.wait()


def _probe(models: Models, folder: Path, scenes: int, timestep: int, batch_size: int) -> dict:
    """The adapter's figures without and with the LoRA; kept, as they take a while."""
    from dataclasses import asdict

    from ..evaluation.adapter_metrics import Probe, adapter_metrics
    from ..evaluation.run import write_text

    probe = Probe(scenes, timestep, batch_size=batch_size)
    asked = {"probe": json.loads(json.dumps(asdict(probe))), "weights": models.fingerprint()}
    path = folder / "adapter.json"
    if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8")))["asked"] == asked:
        return kept["found"]
    sides = {"base": models.plain, "with LoRA": models.tuned}
    if models.tuned is models.plain:
        sides.pop("with LoRA")
    with progress("adapter", scenes * len(sides), 0) as advance:
        found = {
            name: adapter_metrics(pipeline, models.adapter, probe, advance)
            for name, pipeline in sides.items()
        }
    write_text(path, json.dumps({"asked": asked, "found": found}, indent=2) + "\n")
    return found


def _show(results: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..evaluation.words import adapter_table, notes, table

    heading, *rows = table(results, line_break="\n")
    shown = Table(*heading, title="share of pictures where the caption holds", show_lines=True)
    for row in rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))  # no markup
    Console().print(shown)
    typer.echo("\n".join(notes(results)))
    if "adapter" in results:
        typer.echo("\n" + adapter_table(results["adapter"]))
    typer.echo(f"as Markdown: {folder / 'table.md'}")
    typer.echo(f"pictures side by side: {folder / 'index.html'}")
