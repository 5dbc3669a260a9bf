"""Evaluation of generation: draw prompts of any data set in every arm, then judge the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..files import write_json
from ..generation import Sampling
from . import catalogue
from .arms import STANDARD, Arm, Ways, choose_arms
from .catalogue import LoadedExtractor, Metric, MetricWeights
from .cost import equal_candidates, work
from .models import Measure, Models
from .passes import (
    REFERENCE,
    Pass,
    PictureFiles,
    extract_features,
    reference_files,
    score_pictures,
)
from .processes import Processes
from .prompts import Source
from .run import RunFolder, missing, run
from .shapes import rendered_scenes, shapes_verdict
from .summary import Findings, Scored

COSTS = "costs.json"

Bar = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]
"""A progress bar: from what is done and how much there is of it to what counts it."""


@dataclass(frozen=True)
class Evaluation:
    """What is drawn and how.

    Attributes:
        source: the prompts.
        sampling: of all arms; its correction is that of the arm *self-correction*.
        measure: how pictures are scored by the adapter.
        batch_size: pictures drawn together; part of what makes a picture, up to rounding.
        candidates: of the arm *best-of*; 0 for as many as cost what self-correction costs.
        arms: names of the arms, the first to compare with.
        weights: of the metrics that need weights of their own.
    """

    source: Source
    sampling: Sampling
    measure: Measure = field(default_factory=Measure)
    batch_size: int = 8
    candidates: int = 0
    arms: tuple[str, ...] = STANDARD
    weights: MetricWeights = field(default_factory=MetricWeights)


class Opened(NamedTuple):
    """A run that is ready to go.

    Attributes:
        folder: where to.
        arms: the first is what the others are compared with.
        costs: floating point operations per picture, by the arm's name.
    """

    folder: RunFolder
    arms: tuple[Arm, ...]
    costs: dict[str, int]


def named_arms(models: Models, path: Path, evaluation: Evaluation) -> tuple[Arm, ...]:
    """The arms of an evaluation; those that need what there is not are left out of the standard
    ones.

    Raises:
        ValueError: see :func:`~dpt_core.evaluation.arms.choose_arms`.
    """
    names, candidates = evaluation.arms, evaluation.candidates
    if names[: len(STANDARD)] == STANDARD and not models.has_lora:
        names = tuple(name for name in names if name not in ("lora", "both"))
    if not candidates and "best-of" in names:
        candidates = _equal_candidates(models, path, evaluation)
    return choose_arms(names, Ways(evaluation.sampling, candidates), models.has_lora)


def open_run(
    models: Models,
    path: str | Path,
    evaluation: Evaluation,
    processes: Processes,
    arms: Sequence[Arm] | None = None,
) -> Opened:
    """Open the folder of an evaluation and find out what its arms cost.

    Args:
        models: what draws.
        path: the folder.
        evaluation: the settings.
        processes: of which the first writes.
        arms: in place of those that the evaluation names.

    Raises:
        ValueError: the folder holds a run with other settings or of another version of the method,
            a setting is out of range, or there is no such arm.
    """
    settings = {
        "prompts": evaluation.source.about,
        "batch_size": evaluation.batch_size,
        "measure": asdict(evaluation.measure),
        "device": models.plain.device.type,
        "weights": models.fingerprint(),
    }
    with processes.main_first():
        RunFolder(path, settings, ())  # first: costs of other weights are not these
        chosen = tuple(arms or named_arms(models, Path(path), evaluation))
        folder = RunFolder(path, settings, chosen)
        return Opened(folder, chosen, _costs(models, folder, chosen, evaluation.measure))


def draw_pictures(
    models: Models, opened: Opened, evaluation: Evaluation, processes: Processes, bar: Bar
) -> None:
    """Draw this process's pictures that are missing; see :func:`~dpt_core.evaluation.run.run`."""
    (folder, arms, costs), prompts = opened, evaluation.source.prompts
    indices, size, share = range(len(prompts)), evaluation.batch_size, processes.share
    left = sum(
        costs[arm.name] * len(batch)
        for arm, _, batch in missing(arms, indices, folder, size, share)
    )
    verdict = shapes_verdict if evaluation.source.judged else _no_verdict
    with bar("drawing", left) as advance:

        def count(arm: Arm, pictures: int) -> None:
            advance(costs[arm.name] * pictures)

        run(models, arms, prompts, folder, verdict, evaluation.measure, size, count, share)


def score_pictures_of(
    opened: Opened,
    evaluation: Evaluation,
    processes: Processes,
    bar: Bar,
    readers: Metric | None = None,
    vae: Any = None,
) -> Findings:
    """Score this process's pictures in every metric whose weights are given.

    Args:
        opened, evaluation, processes, bar: as the pictures were drawn.
        readers: also read the first arm's pictures with these; see
            :func:`~dpt_core.evaluation.separation.readers`.
        vae: in the shapes world, the model's autoencoder: how far pictures are from rendered
            scenes, as it sees them.

    Returns:
        What there is to report once all processes are here.
    """
    source = evaluation.source
    scored = [Scored(each) for each in catalogue.JUDGED] if source.judged else []
    scored.append(Scored(catalogue.ALIGNMENT))
    for metric in evaluation.weights.metrics():
        passes = _score(metric, opened.arms, opened, evaluation, processes, bar)
        scored += [Scored(column, passes) for column in metric.columns]
    reading = None
    if readers and source.judged:
        first = opened.arms[:1]
        (reading,) = _score(readers, first, opened, evaluation, processes, bar).values()
    inception, weights = {}, evaluation.weights
    if weights.inception is not None:
        real = reference_files(weights.reference) if weights.reference else []
        loaded = catalogue.load_extractor(weights.inception, real, processes.device)
        inception = _features(catalogue.INCEPTION, loaded, real, opened, evaluation, processes, bar)
    latents = {}
    if vae is not None and source.judged and len(source.prompts) > 1:
        with processes.main_first():
            real = rendered_scenes(opened.folder.path / "rendered", source.prompts)
        seen = catalogue.latent_features(vae, real)
        latents = _features(catalogue.LATENTS, seen, real, opened, evaluation, processes, bar)
    return Findings(
        opened.folder, opened.arms, source, opened.costs, scored, inception, latents, reading,
        weights.check(),
    )  # fmt: skip


def _score(
    metric: Metric,
    arms: Sequence[Arm],
    opened: Opened,
    evaluation: Evaluation,
    processes: Processes,
    bar: Bar,
) -> dict[str, Pass]:
    """One metric over the pictures of arms."""
    loaded, prompts = metric.load(processes.device), evaluation.source.prompts
    passes = {arm.name: Pass(metric.name, arm.name, loaded.weights) for arm in arms}
    todo = dict.fromkeys(passes.values(), prompts)
    with _counted(metric.name, todo, opened.folder, evaluation, processes, bar) as advance:
        for arm in arms:
            score_pictures(
                opened.folder, arm, passes[arm.name], prompts, loaded.scorer,
                evaluation.batch_size, advance, processes.share,
            )  # fmt: skip
    return passes


def _features(
    name: str,
    loaded: LoadedExtractor,
    real: Sequence[Path],
    opened: Opened,
    evaluation: Evaluation,
    processes: Processes,
    bar: Bar,
) -> dict[str, Pass]:
    """Features that a network sees in all arms' pictures and, if there are any, in real ones."""
    folder, count = opened.folder, len(evaluation.source.prompts)
    passes = {arm.name: Pass(name, arm.name, loaded.weights) for arm in opened.arms}
    files: dict[Pass, Sequence[Path]] = {
        passes[arm.name]: PictureFiles(folder, arm, count) for arm in opened.arms
    }
    if real:
        passes[REFERENCE] = Pass(name, REFERENCE, loaded.reference)
        files[passes[REFERENCE]] = real
    with _counted(name, files, folder, evaluation, processes, bar) as advance:
        for over, paths in files.items():
            extract_features(
                folder, over, paths, loaded.extractor, evaluation.batch_size, advance,
                processes.share,
            )  # fmt: skip
    return passes


def _counted(
    name: str,
    todo: Mapping[Pass, Sequence[Any]],
    folder: RunFolder,
    evaluation: Evaluation,
    processes: Processes,
    bar: Bar,
) -> AbstractContextManager[Callable[[float], None]]:
    """A bar of the pictures that passes have yet to read."""
    size, share = evaluation.batch_size, processes.share
    left = sum(
        len(batch)
        for over, items in todo.items()
        for _, _, batch in missing([over], range(len(items)), folder, size, share)
    )
    return bar(name, left)


def _equal_candidates(models: Models, path: Path, evaluation: Evaluation) -> int:
    """Counted once per folder: it costs a few pictures."""
    known = _read_costs(path)
    if "candidates" not in known:
        prompt = evaluation.source.prompts[0].text
        sampling, measure = evaluation.sampling, evaluation.measure
        known["candidates"] = equal_candidates(models, sampling, prompt, measure)
        write_json(path / COSTS, known)
    return known["candidates"]


def _costs(
    models: Models, folder: RunFolder, arms: Sequence[Arm], measure: Measure
) -> dict[str, int]:
    known = _read_costs(folder.path)
    for arm in arms:
        if arm.name not in known:
            known[arm.name] = work(models, arm, "a red circle", measure)
            write_json(folder.path / COSTS, known)
    return {arm.name: known[arm.name] for arm in arms}


def _read_costs(path: Path) -> dict[str, int]:
    file = path / COSTS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _no_verdict(picture: Any, prompt: Any) -> dict[str, Any]:
    return {}
