"""An adapter for any frozen model: tap, features, training, report; called again, it goes on.

A run lives in a folder: `settings.json`, `taps.json` (the trial), `kept.json` (how much is kept),
`held-out` and `features` (deleted in the end), `training-N` (:mod:`.loop`, with batches of N),
`held-out.json`, `best.safetensors` and `adapter.safetensors`.

What is kept are the weights that told held-out pictures best: with little data an adapter learns
them by heart before it is done.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from ..adapter import DiscriminativeAdapter
from ..backbones.prompts import moments_of
from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..files import write_json, write_tensors
from ..plots import drawn
from .data.images import PictureSource
from .data.rows import CaptionedPictures, split_held_out
from .data.views import with_views
from .discrimination import ProbingTask, collate_cached
from .features import (
    Example,
    FeatureSource,
    NoisedExamples,
    batch_of,
)
from .held_out import best, figures, find, scores
from .kept import KeptExamples, Plan, folded, keep, plan, strongest
from .loop import CHECKPOINT as STATE
from .loop import Interrupted, train
from .observer import Observer
from .recipe import AUTO, RunSettings
from .report import report
from .state import read_losses, settle
from .tap_trial import LEVEL as TRIAL_LEVEL
from .tap_trial import choose_tap, compare_taps, tried_taps
from .whitening import whitened_input

logger = logging.getLogger(__name__)

SETTINGS, TRIAL, PLAN, HISTORY, BEST, CHECKPOINT = (
    "settings.json", "taps.json", "kept.json", "held-out.json", "best.safetensors",
    "adapter.safetensors",
)  # fmt: skip

READ_AT = 500
"""Noise level of the held-out examples: where pictures are scored by default."""

HELD_OUT, TRIED, WHITENED, SHOWN = 192, 512, 256, 8
"""Examples to tell by, of the trial, to whiten by, and shown with their boxes; at most."""

ENOUGH = 6000
"""Captioned pictures, views among them, above which no view is added: each has to be encoded."""

VALUES = 2**28
"""Features, in numbers, that are looked at for whitening, and kept of held-out examples."""


@dataclass(frozen=True)
class Trained:
    """A run that is done.

    Attributes:
        checkpoint: the adapter.
        rows: losses by step.
        history: figures of the held-out examples by step.
        best: that of the weights that are kept.
        picture: the report, a PIL image.
    """

    checkpoint: Checkpoint
    rows: Sequence[Mapping[str, float]]
    history: Sequence[Mapping[str, float]]
    best: Mapping[str, float]
    picture: Any


@dataclass
class AdapterRun:
    """One run.

    Args:
        source: the model.
        data: rows as :func:`prepared`, with latents for images.
        pictures: the pictures themselves, for the report.
        folder: where the run lives.
        settings: of the run.
        about: what tells model and data from others, JSON by name.
        observer: looks on.
        memory: bytes that kept features may take.
    """

    source: FeatureSource
    data: CaptionedPictures
    pictures: PictureSource
    folder: Path
    settings: RunSettings
    about: Mapping[str, Any] = field(default_factory=dict)
    observer: Observer = field(default_factory=Observer)
    memory: float = math.inf

    def finish(self) -> Trained:
        """Train to the last step, or take up what is there.

        Raises:
            dpt_core.training.state.RunError: the folder holds another run.
            dpt_core.training.loop.Interrupted: the observer stopped it; call again to go on.
            ValueError: the data is too little, or memory does not hold half of a batch.
        """
        settings = asdict(self.settings) | dict(self.about)
        ours = json.loads(json.dumps(settings))
        remedy = "Delete it, or take another run name"
        settle(self.folder / SETTINGS, ours, remedy, free=("save_every",))
        done = self.folder / CHECKPOINT
        with torch.random.fork_rng():
            if done.exists():
                return self._outcome(load_checkpoint(done))
            checkpoint = self._train()
        save_checkpoint(done, checkpoint)
        shutil.rmtree(self.folder / "features", ignore_errors=True)
        return self._outcome(checkpoint)

    def tap(self, data: CaptionedPictures) -> str:
        """Where the adapter reads: what the settings say, or what the trial found.

        Raises:
            ValueError: the model has no such tap.
        """
        taps, wanted = self.source.taps(), self.settings.tap
        if wanted != AUTO:
            if wanted not in taps:
                raise ValueError(f"tap must be {AUTO} or one of {', '.join(taps)}; got {wanted!r}")
            return wanted
        path = self.folder / TRIAL
        if not path.exists():
            self.observer.progress("trying taps", 0, 1)
            examples = NoisedExamples(data, self.settings.seed, TRIED, TRIAL_LEVEL)
            tried = tried_taps(taps)
            write_json(path, compare_taps(self.source, tried, [examples[n] for n in range(TRIED)]))
        found = json.loads(path.read_text("utf-8"))
        logger.info("taps by how well they tell right from wrong: %s", found)
        return choose_tap(found)

    def _train(self) -> Checkpoint:
        rest, held = split_held_out(self.data)
        tap = self.tap(rest)
        told_by = self._prepare(replace(held, others={}), tap)
        self._kept = self._keep("held-out", tap, told_by)
        self._shown = (
            [told_by[n] for n in range(min(SHOWN, len(told_by)))] if held.grounding else []
        )
        adapter = self._adapter(tap, rest)
        data, collate, features = self._examples(tap, rest)
        weights = self.settings.chosen.weights()
        task = LiveTask(self.source, adapter, weights)
        size = self.settings.batch_size
        for batch in dict.fromkeys((size, max(1, size // 2))):
            try:
                with self._whitened(adapter, features):
                    self._loop(task, data, batch, collate)
                break
            except torch.OutOfMemoryError as error:
                logger.warning("out of memory with batches of %d", batch)
                if batch < size or size == 1:
                    raise ValueError(
                        f"out of memory with batches of {batch}: lower batch_size or the size of "
                        "the pictures, or unload other models"
                    ) from error
        if self._projection is not None:
            adapter = folded(adapter.cpu(), self._projection)
        adapter.requires_grad_(False).eval().cpu()
        return Checkpoint(adapter.config, adapter)

    def _prepare(self, held: CaptionedPictures, tap: str) -> NoisedExamples:
        """Examples to tell by, as many as fit; decides what is kept of features."""
        seed = self.settings.seed
        one = batch_of(self.source, tap, [NoisedExamples(held, seed, 1, READ_AT)[0]]).features
        self._side, self._channels = one.shape[-1], one.shape[2]
        path = self.folder / PLAN
        if not path.exists():
            wanted = self.settings.examples
            write_json(path, asdict(plan(wanted, one.numel(), self._channels, self.memory)))
        self._plan = Plan(**json.loads(path.read_text("utf-8")))
        self._projection = None
        if self._plan.channels:
            examples = NoisedExamples(held, seed, 32)
            read = (batch_of(self.source, tap, [examples[n]]).features[0] for n in range(32))
            cells = torch.cat([each.float() for each in read])
            self._projection = strongest(cells, self._plan.channels).cpu()
            self._channels = self._plan.channels
        values = one.numel() * self._channels // one.shape[2]
        count = min(HELD_OUT, max(16, VALUES // values))
        return NoisedExamples(held, seed, count, READ_AT)

    def _keep(self, name: str, tap: str, examples: NoisedExamples) -> list[dict]:
        total = len(examples)

        def progress(done: int) -> None:
            self.observer.progress(f"{name}: {done} of {total} examples", done, total)
            if self.observer.stopped():
                raise Interrupted(f"stopped after {done} of {total} examples")

        folder = self.folder / name
        return keep(self.source, tap, examples, folder, self._projection, progress)

    def _adapter(self, tap: str, data: CaptionedPictures) -> DiscriminativeAdapter:
        source, boxes = self.source, bool(data.grounding)
        captions = list(dict.fromkeys(row.caption for row in data.matching))[:1024]
        vectors = source.text_vectors(captions)
        torch.manual_seed(self.settings.seed)
        config = self.settings.chosen.adapter(
            source.family, source.text, tap, self._channels, self._side, vectors.shape[1], boxes
        )
        adapter = DiscriminativeAdapter(config)
        if config.text == "mean":
            mean, scale = moments_of(vectors)
            adapter.text_mean.copy_(mean)
            adapter.text_scale.copy_(scale)
        return adapter.to(source.device)

    def _examples(self, tap: str, data: CaptionedPictures) -> tuple[Dataset, Any, torch.Tensor]:
        """Data set, collate function, and features to whiten by."""
        settings, kept = self.settings, self._plan.count
        count = kept or settings.steps * settings.batch_size
        examples = NoisedExamples(data, settings.seed, count, lean=settings.chosen.lean)
        if kept:
            shards = self._keep("features", tap, examples)
            sample = (shard["features"][:, 0].float() for shard in shards)
            return KeptExamples(shards, examples), collate_cached, _first(sample)
        chosen = range(0, min(count, WHITENED), 16)
        sample = (
            batch_of(self.source, tap, [examples[n] for n in range(first, min(first + 16, count))])
            .features[0].float().cpu()
            for first in chosen
        )  # fmt: skip
        return examples, list, _first(sample)

    def _whitened(self, adapter: DiscriminativeAdapter, features: torch.Tensor) -> Any:
        if not self.settings.chosen.whitened:
            return nullcontext()
        torch.manual_seed(self.settings.seed)
        return whitened_input(adapter, features.to(self.source.device), fresh=True)

    def _loop(self, task: nn.Module, data: Dataset, batch: int, collate: Any) -> None:
        total = self.settings.steps
        history: list[dict[str, float]] = self._history()

        def preview(task: nn.Module, path: Path) -> None:
            now = figures(scores(task.adapter, self._kept))
            history[:] = [each for each in history if each["step"] < int(path.stem)]
            history.append({"step": int(path.stem), **now._asdict()})
            if self._best(history) is history[-1]:
                write_tensors(self.folder / BEST, task.adapter.state_dict())
            write_json(self.folder / HISTORY, history)
            picture = self._report(task.adapter, rows, history)
            picture.save(path, format="png")
            self.observer.drawn(picture)

        def watch(row: Mapping[str, float]) -> bool:
            rows.append(row)
            step, last = int(row["step"]), history[-1] if history else None
            told = f", ITM {last['itm']:.0%}" if last else ""
            what = f"step {step} of {total}, loss {row['total']:.3f}{told}"
            self.observer.progress(what, step, total)
            return self.observer.stopped()

        folder = self.folder / f"training-{batch}"
        rows = read_losses(folder / STATE)
        train(
            task, data, self.settings.chosen.loop(self.settings, batch), folder,
            collate=collate, preview=preview, alone=self.source.device, watch=watch,
        )  # fmt: skip
        if (self.folder / BEST).exists():  # there is none where nothing could be drawn
            task.adapter.load_state_dict(load_file(self.folder / BEST))

    def _best(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        settings = self.settings
        every = settings.chosen.loop(settings, settings.batch_size).save_every
        return best(history, every, settings.steps)

    def _history(self) -> list[dict[str, float]]:
        path = self.folder / HISTORY
        return json.loads(path.read_text("utf-8")) if path.exists() else []

    def _report(self, adapter: DiscriminativeAdapter, rows: Sequence, history: Sequence) -> Any:
        found = find(adapter, self._kept, self._shown)
        title = f"{adapter.config.family}, tap {adapter.config.tap}"
        return report(title, rows, history, found, self.pictures)

    def _outcome(self, checkpoint: Checkpoint) -> Trained:
        from PIL import Image

        runs = self.folder.glob(f"training-*/{STATE}")
        last = max(runs, key=lambda path: path.stat().st_mtime).parent
        rows, history = read_losses(last / STATE), self._history()
        path = last / "previews" / f"{len(rows):07d}.png"
        if path.exists():
            picture = Image.open(path).convert("RGB")
        else:  # it could not be drawn
            picture = drawn(report, "", rows, history, [], self.pictures)
        return Trained(checkpoint, rows, history, self._best(history), picture)


def prepared(data: CaptionedPictures, settings: RunSettings) -> CaptionedPictures:
    """Data as a recipe wants it: with views, as far as pictures are few, and without the further
    negatives that it does not use."""
    if not settings.chosen.others:
        data = replace(data, others={})
    count = min(settings.chosen.views, max(1, ENOUGH // max(1, len(data.matching))))
    return with_views(data, count, settings.seed)


class LiveTask(ProbingTask):
    """Probing on kept features, or on examples that the model reads in every step.

    Args:
        source: the model.
        adapter, weights: see :class:`~.discrimination.ProbingTask`.
    """

    def __init__(self, source: FeatureSource, adapter: DiscriminativeAdapter, weights: Any) -> None:
        super().__init__(adapter, None, weights)
        self._source = source

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if isinstance(batch, list):
            examples: list[Example] = batch
            batch = batch_of(self._source, self.adapter.config.tap, examples)
        return super().forward(batch)


def _first(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """The first of feature maps that come in parts: enough to whiten by."""
    found: list[torch.Tensor] = []
    for part in parts:
        found.append(part)
        values = sum(each.numel() for each in found)
        if sum(map(len, found)) >= WHITENED or values >= VALUES:
            break
    return torch.cat(found)[:WHITENED]
