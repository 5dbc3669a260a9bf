"""`dpt evaluate shapes`: the comparison in the shapes world."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evaluation import defaults
from .. import emit
from ..loading import chosen_device, demo_models
from ..options import (
    CorrectionOptions,
    DemoSamplingOptions,
    DemoWeights,
    Device,
    MeasureOptions,
    Natural,
    Positive,
    correction_of,
)
from ..progress import progress
from ..tables import show

if TYPE_CHECKING:
    from ...evaluation.arms import Arm, Models
    from ...evaluation.processes import Processes
    from ...evaluation.shapes import Prepared


def shapes(
    folder: Path,
    /,
    *,
    prompts: Positive = defaults.PROMPTS,
    split: str = "held-out",
    arm: list[str] | None = None,
    best_of: Natural = 0,
    correction: CorrectionOptions = CorrectionOptions(),
    sampling: DemoSamplingOptions = DemoSamplingOptions(),
    measure: MeasureOptions = MeasureOptions(),
    score_lora: bool = True,
    adapter: bool = True,
    batch_size: Positive = defaults.BATCH_SIZE,
    device: Device = "auto",
    weights: DemoWeights = None,
) -> None:
    """Compare base, self-correction, LoRA, both and best of N in the shapes world.

    For example:

        dpt evaluate shapes runs/shapes --arm base --arm self-correction
        dpt evaluate shapes runs/full --mode exact --end-percent 1 --prompts 252

    Args:
        folder: Where pictures and figures go; run again to go on after a stop.
        prompts: How many prompts.
        split: held-out, or tuning for choosing settings.
        arm: base, self-correction, lora, both, best-of: repeat; else all of them.
        best_of: Candidates to choose from; 0: at the cost of correction.
        score_lora: Score pictures with the LoRA, with which the adapter was tuned.
        adapter: Also test matching and grounding.
        batch_size: Pictures drawn together.
    """
    settings = sampling.sampling(correction_of(correction))
    scoring = measure.measure(lora=score_lora)
    from ...evaluation.processes import Processes
    from ...evaluation.report import write_report
    from ...evaluation.shapes import Comparison, prepare

    comparison = Comparison(
        split, prompts, settings, scoring, best_of, batch_size, tuple(arm or ())
    )
    processes = Processes(chosen_device(device))
    models = demo_models(weights, processes.device)
    with processes.main_first():
        prepared = prepare(models, folder, comparison)
    draw(models, prepared, comparison, processes)
    if not processes.main:
        return
    more = {}
    if adapter:
        more["adapter"] = _probe(models, folder, prompts, measure.timestep, batch_size)
    results = write_report(
        prepared.folder, prepared.arms, prepared.costs, "DPT in the shapes world", **more
    )
    show_results(results, folder)


def draw(models: Models, prepared: Prepared, comparison: Any, processes: Processes) -> None:
    """Draw what is missing, each process its share; the progress bar counts operations."""
    from ...evaluation.run import missing
    from ...evaluation.shapes import carry_out

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


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Print the figures, and where all of them are."""
    from ...evaluation.words import adapter_table, notes, table

    show(
        table(results, line_break="\n"), notes(results),
        "share of pictures where the caption holds", "\n",
    )  # fmt: skip
    if "adapter" in results:
        emit("\n" + adapter_table(results["adapter"]))
    emit(f"as Markdown: {folder / 'table.md'}")
    emit(f"pictures side by side: {folder / 'index.html'}")


def _probe(models: Models, folder: Path, scenes: int, timestep: int, batch_size: int) -> dict:
    """The adapter's figures without and with the LoRA; kept, as they take a while."""
    from ...evaluation.adapter_metrics import Probe, adapter_metrics
    from ...files import write_json

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
    write_json(path, {"asked": asked, "found": found})
    return found
