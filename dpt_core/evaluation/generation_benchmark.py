"""Benchmarks of generation: draw prompts in every arm, then score the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..generation import Sampling
from . import catalogue
from .arms import Arm, Measure, Models, choose_arms, standard_arms
from .benchmark_report import Findings, Scored
from .benchmarks import SHAPES, Source
from .catalogue import MetricWeights
from .passes import (
    REFERENCE,
    Pass,
    PictureFiles,
    extract_features,
    reference_files,
    score_pictures,
)
from .processes import Processes
from .run import RunFolder, missing, run
from .shapes import shapes_verdict

Bar = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]
"""A progress bar: from what is done and how much there is of it to what counts it."""


@dataclass(frozen=True)
class Benchmark:
    """What is drawn and how.

    Attributes:
        source: the prompts.
        sampling: of the arms that correct themselves; the others sample alike, without.
        measure: how pictures are scored by the adapter.
        batch_size: pictures drawn together; part of what makes a picture, up to rounding.
        candidates: of an arm that chooses by score; 0 leaves it out.
        arms: names of the arms to draw, the first to compare with; none for all there are.
        weights: of the other metrics.
    """

    source: Source
    sampling: Sampling
    measure: Measure = field(default_factory=Measure)
    batch_size: int = 8
    candidates: int = 0
    arms: tuple[str, ...] = ()
    weights: MetricWeights = field(default_factory=MetricWeights)


def benchmark_arms(benchmark: Benchmark, lora: bool) -> tuple[Arm, ...]:
    """The arms of a benchmark.

    Args:
        benchmark: what is asked for.
        lora: whether the checkpoint has a LoRA; arms with it are left out otherwise.

    Raises:
        ValueError: an arm is asked for that there is not.
    """
    *arms, choosing = standard_arms(benchmark.sampling, benchmark.candidates)
    arms = [arm for arm in arms if lora or not arm.lora]
    arms = [arm for arm in arms if benchmark.sampling.corrects or arm.name in ("base", "lora")]
    if benchmark.candidates:
        arms.append(choosing)
    return choose_arms(arms, benchmark.arms)


def open_benchmark(
    models: Models, path: str | Path, benchmark: Benchmark, processes: Processes
) -> tuple[RunFolder, tuple[Arm, ...]]:
    """Open the folder of a benchmark.

    Raises:
        ValueError: the folder holds a run with other settings, or no such arm.
    """
    arms = benchmark_arms(benchmark, models.tuned is not models.plain)
    settings = {
        "prompts": benchmark.source.about,
        "batch_size": benchmark.batch_size,
        "measure": asdict(benchmark.measure),
        "device": models.plain.device.type,
        "weights": models.fingerprint(),
    }
    with processes.main_first():
        return RunFolder(path, settings, arms), arms


def draw_benchmark(
    models: Models,
    folder: RunFolder,
    arms: Sequence[Arm],
    benchmark: Benchmark,
    processes: Processes,
    bar: Bar,
) -> None:
    """Draw this process's pictures that are missing; see :func:`~dpt_core.evaluation.run.run`."""
    prompts, size, share = benchmark.source.prompts, benchmark.batch_size, processes.share
    places = range(len(prompts))
    left = sum(
        _effort(arm) * len(batch) for arm, _, batch in missing(arms, places, folder, size, share)
    )
    verdict = shapes_verdict if benchmark.source.about["source"] == SHAPES else _no_verdict
    with bar("drawing", left) as advance:

        def count(arm: Arm, pictures: int) -> None:
            advance(_effort(arm) * pictures)

        run(models, arms, prompts, folder, verdict, benchmark.measure, size, count, share)


def score_benchmark(
    folder: RunFolder,
    arms: Sequence[Arm],
    benchmark: Benchmark,
    processes: Processes,
    bar: Bar,
) -> Findings:
    """Score this process's pictures in every metric whose weights are given.

    Returns:
        What there is to report once all processes are here.
    """
    shapes, prompts = benchmark.source.about["source"] == SHAPES, benchmark.source.prompts
    scored = [Scored(catalogue.HOLDS)] if shapes else []
    scored.append(Scored(catalogue.ALIGNMENT))
    for metric in benchmark.weights.metrics():
        loaded = metric.load(processes.device)
        passes = {arm.name: Pass(metric.name, arm.name, loaded.weights) for arm in arms}
        todo = dict.fromkeys(passes.values(), prompts)
        with _counted(metric.name, todo, folder, benchmark, processes, bar) as advance:
            for arm in arms:
                score_pictures(
                    folder, arm, passes[arm.name], prompts, loaded.scorer, benchmark.batch_size,
                    advance, processes.share,
                )  # fmt: skip
        scored += [Scored(column, passes) for column in metric.columns]
    inception = _inception(folder, arms, benchmark, processes, bar)
    about, skipped = benchmark.source.about, benchmark.weights.check()
    return Findings(folder, arms, about, scored, inception, skipped)


def _inception(
    folder: RunFolder, arms: Sequence[Arm], benchmark: Benchmark, processes: Processes, bar: Bar
) -> Mapping[str, Pass]:
    """Features of an Inception network, of the pictures and of the reference."""
    weights = benchmark.weights
    if weights.inception is None:
        return {}
    real = reference_files(weights.reference) if weights.reference else []
    loaded = catalogue.load_extractor(weights.inception, real, processes.device)
    count = len(benchmark.source.prompts)
    passes = {arm.name: Pass(catalogue.INCEPTION, arm.name, loaded.weights) for arm in arms}
    files: dict[Pass, Sequence[Path]] = {
        passes[arm.name]: PictureFiles(folder, arm, count) for arm in arms
    }
    if real:
        passes[REFERENCE] = Pass(catalogue.INCEPTION, REFERENCE, loaded.reference)
        files[passes[REFERENCE]] = real
    with _counted("inception", files, folder, benchmark, processes, bar) as advance:
        for over, paths in files.items():
            extract_features(
                folder, over, paths, loaded.extractor, benchmark.batch_size, advance,
                processes.share,
            )  # fmt: skip
    return passes


def _counted(
    name: str,
    todo: Mapping[Pass, Sequence[Any]],
    folder: RunFolder,
    benchmark: Benchmark,
    processes: Processes,
    bar: Bar,
) -> AbstractContextManager[Callable[[float], None]]:
    """A bar of the pictures that passes have yet to read."""
    size, share = benchmark.batch_size, processes.share
    left = sum(
        len(batch)
        for over, items in todo.items()
        for _, _, batch in missing([over], range(len(items)), folder, size, share)
    )
    return bar(name, left)


def _effort(arm: Arm) -> float:
    """Roughly what a picture takes, plain = 1: half of the UNet forward and back per correction."""
    if not arm.sampling.corrects:
        return arm.candidates
    how = arm.sampling.correction
    part = (how.end_percent - how.start_percent) / how.every_n_steps * how.inner_steps
    return arm.candidates * (1 + part)


def _no_verdict(picture: Any, prompt: Any) -> dict[str, Any]:
    return {}
