"""How the commands draw, read, report and show."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import emit, say
from ..progress import progress
from ..tables import show

if TYPE_CHECKING:
    from ...evaluation.arms import Arm
    from ...evaluation.discrimination import Answers, Asked, Question
    from ...evaluation.generation import Evaluation
    from ...evaluation.models import Models
    from ...evaluation.processes import Processes
    from ...evaluation.summary import Findings


def pictures(
    models: Models,
    folder: Path,
    evaluation: Evaluation,
    processes: Processes,
    arms: Sequence[Arm] | None = None,
    readers: bool = False,
) -> Findings:
    """Draw and score what is missing, this process its share.

    Args:
        models, folder, evaluation, processes, arms: see
            :func:`~dpt_core.evaluation.generation.open_run`.
        readers: also how scores tell right pictures from wrong ones.

    Returns:
        What there is to report, once all processes are done.
    """
    from ...evaluation import generation, separation

    say("counting operations …")
    opened = generation.open_run(models, folder, evaluation, processes, arms)
    bar = functools.partial(progress, shown=processes.main)
    generation.draw_pictures(models, opened, evaluation, processes, bar)
    reading = separation.readers(models, evaluation.measure) if readers else None
    vae = models.plain.vae if find_spec("torchmetrics") else None  # which computes the distance
    found = generation.score_pictures_of(opened, evaluation, processes, bar, reading, vae)
    processes.wait()
    return found


def answers(
    models: Models,
    folder: Path,
    asked: Asked,
    data: Mapping[Question, Sequence[Any]],
    processes: Processes,
) -> Answers | None:
    """Read what is missing, this process its share; the main process gets what was found."""
    from ...evaluation import discrimination
    from ...evaluation.run import missing

    opened = discrimination.open_answers(models, folder, asked, list(data), processes)
    left = sum(
        len(chosen)
        for kind, examples in data.items()
        for _, _, chosen in missing(
            [kind], asked.indices(examples), opened, asked.batch_size, processes.share
        )
    )
    with progress("reading", left, shown=processes.main) as advance:
        discrimination.answer(models, opened, asked, data, advance, processes.share)
    processes.wait()
    return discrimination.write_answers(opened, asked, list(data)) if processes.main else None


def report(found: Findings, title: str, adapter: Answers | None = None) -> dict[str, Any]:
    """Write all files of an evaluation and show its tables."""
    from ...evaluation.report import notes, times_of, write_report
    from ...evaluation.separation import READERS
    from ...evaluation.tables import arm_table, reader_table

    results = write_report(found, title, adapter)
    show(arm_table(results, found.columns, times=times_of(found)), notes(results))
    if reading := reader_table(results, READERS):
        show(reading)
    if adapter is not None:
        show(adapter.rows, adapter.notes)
    folder = found.folder.path
    emit(f"tables: {folder / 'table.md'}, {folder / 'table.tex'}")
    emit(f"pictures side by side: {folder / 'index.html'}")
    return results
