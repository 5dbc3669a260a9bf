"""The comparison in the shapes world, where whether a caption holds can be computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..correction import Correction
from ..generation import Sampling
from ..shapes.judge import judge
from . import defaults
from .arms import Arm, Measure, Models, choose_arms, standard_arms
from .cost import equal_candidates, work
from .processes import ALONE, Share
from .prompts import Prompt, shapes_prompts
from .run import RunFolder, run, write_text

COSTS = "costs.json"


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        split: of the prompts, see :func:`~dpt_core.evaluation.prompts.shapes_prompts`.
        prompts: how many.
        sampling: of the arms that correct themselves; the others sample alike, without.
        measure: how pictures are scored.
        candidates: of the arm that chooses; 0 for as many as cost what self-correction costs.
        batch_size: pictures drawn together; part of what makes a picture, up to rounding.
        arms: names of the arms to draw, the first to compare with; none for all there are.
    """

    split: str = "held-out"
    prompts: int = defaults.PROMPTS
    sampling: Sampling = field(
        default_factory=lambda: Sampling(defaults.STEPS, defaults.GUIDANCE, Correction())
    )
    measure: Measure = field(default_factory=Measure)
    candidates: int = 0
    batch_size: int = defaults.BATCH_SIZE
    arms: tuple[str, ...] = ()


class Prepared(NamedTuple):
    """A run that is ready to go.

    Attributes:
        folder: where to.
        arms: the base first.
        prompts: what is drawn.
        costs: floating point operations per picture, by the arm's name.
    """

    folder: RunFolder
    arms: tuple[Arm, ...]
    prompts: list[Prompt]
    costs: dict[str, int]


def prepare(models: Models, path: str | Path, comparison: Comparison) -> Prepared:
    """Open the folder of a comparison and find out what its arms cost.

    Raises:
        ValueError: the folder holds a run with other settings, a setting is out of range, or there
            is no such arm.
    """
    prompts = shapes_prompts(comparison.split, comparison.prompts)
    candidates = comparison.candidates or _equal_candidates(models, path, comparison)
    arms = choose_arms(standard_arms(comparison.sampling, candidates), comparison.arms)
    return open_run(models, path, arms, prompts, comparison)


def open_run(
    models: Models,
    path: str | Path,
    arms: Sequence[Arm],
    prompts: list[Prompt],
    comparison: Comparison,
) -> Prepared:
    """As :func:`prepare`, for any arms; the first is what the others are compared with."""
    settings = {
        "split": comparison.split,
        "prompts": comparison.prompts,
        "batch_size": comparison.batch_size,
        "measure": asdict(comparison.measure),
        "device": models.plain.device.type,
        "weights": models.fingerprint(),
    }
    folder = RunFolder(path, settings, arms)
    return Prepared(folder, tuple(arms), prompts, _costs(models, folder, arms, comparison.measure))


def carry_out(
    models: Models,
    prepared: Prepared,
    comparison: Comparison,
    progress: Callable[[Arm, int], None] = lambda arm, pictures: None,
    share: Share = ALONE,
) -> None:
    """Draw and judge what is missing; see :func:`~dpt_core.evaluation.run.run`."""
    folder, arms, prompts, _ = prepared
    run(
        models, arms, prompts, folder, shapes_verdict,
        comparison.measure, comparison.batch_size, progress, share,
    )  # fmt: skip


def shapes_verdict(picture: np.ndarray, prompt: Prompt) -> dict[str, Any]:
    """Whether a prompt's caption holds, and what fails."""
    verdict = judge(picture, prompt.caption)
    return {"holds": verdict.holds, "failures": list(verdict.failures)}


def _equal_candidates(models: Models, path: str | Path, comparison: Comparison) -> int:
    """Counted once per folder: it costs a few pictures."""
    known = _read_costs(Path(path))
    if "candidates" not in known:
        prompt = shapes_prompts(comparison.split, 1)[0].text
        found = equal_candidates(models, comparison.sampling, prompt, comparison.measure)
        known["candidates"] = found
        write_text(Path(path) / COSTS, json.dumps(known, indent=2) + "\n")
    return known["candidates"]


def _costs(
    models: Models, folder: RunFolder, arms: Sequence[Arm], measure: Measure
) -> dict[str, int]:
    known = _read_costs(folder.path)
    for arm in arms:
        if arm.name not in known:
            known[arm.name] = work(models, arm, "a red circle", measure)
    write_text(folder.path / COSTS, json.dumps(known, indent=2) + "\n")
    return {arm.name: known[arm.name] for arm in arms}


def _read_costs(path: Path) -> dict[str, int]:
    file = path / COSTS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
