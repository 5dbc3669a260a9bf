"""The training loop: one for every stage, driven by accelerate.

A run lives in a folder: `config.json`, `checkpoint/` (weights, optimiser, schedule), `losses.csv`
and its curves `losses.png`, and `previews/`. Everything random in step k is drawn from a seed made
of the run's seed and k, so a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ..distributed import without_gpu
from .config import LoopConfig

logger = logging.getLogger(__name__)

Losses = Mapping[str, torch.Tensor]
"""Name → scalar. What is minimised is `total`, or without one the sum."""


class Batches(Sampler[list[int]]):
    """Index batches of one process from a given micro-step on: shuffled anew each epoch.

    Args:
        length: examples in the data set.
        config: batch size and seed.
        start: first micro-step.
        rank, processes: this process among how many.
    """

    def __init__(
        self, length: int, config: LoopConfig, start: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        self._length, self._config = length, config
        self._start, self._rank, self._processes = start, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        size, epoch, order = self._config.batch_size, -1, None
        for micro in range(self._start, self._config.steps * self._config.accumulate):
            first = (micro * self._processes + self._rank) * size
            batch = []
            for place in range(first, first + size):
                if place // self._length != epoch:
                    epoch = place // self._length
                    generator = torch.Generator().manual_seed(self._config.seed + epoch)
                    order = torch.randperm(self._length, generator=generator)
                batch.append(int(order[place % self._length]))
            yield batch


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


def train(
    task: nn.Module,
    data: Dataset,
    config: LoopConfig,
    folder: str | Path,
    *,
    collate: Callable[[list], Any] | None = None,
    preview: Callable[[nn.Module, Path], None] | None = None,
) -> nn.Module:
    """Train a task to its last step, going on from the folder's checkpoint if it has one.

    Args:
        task: called with a batch, it returns :data:`Losses`. Its parameters that require a
            gradient are trained.
        data: a map-style data set.
        config: optimisation settings.
        folder: where the run lives.
        collate: makes a batch of a list of examples.
        preview: called with the task and `previews/` at each checkpoint.

    Returns:
        The task, with averaged weights where `config.ema` asks for them.

    Raises:
        ValueError: the folder holds a run with other settings.
        Interrupted: SIGINT or SIGTERM came; call again to go on.
    """
    run = Run(task, config, Path(folder))
    with run.progress() as bar, _stop_signal() as stop:
        batches = Batches(len(data), config, run.step * config.accumulate, *run.place)
        loader = DataLoader(
            data, batch_sampler=batches, collate_fn=collate, num_workers=config.workers
        )
        micro = iter(loader)
        while run.step < config.steps:
            losses = run.advance(micro)
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()})
            done, asked = run.step == config.steps, run.agree(bool(stop))
            if asked or done or run.step % config.save_every == 0:
                run.save(preview)
            if asked and not done:
                raise Interrupted(f"stopped after step {run.step}; run the command again to go on")
    return run.finish()


class Run:
    """One run: accelerate's objects, the step reached, and the files."""

    def __init__(self, task: nn.Module, config: LoopConfig, folder: Path) -> None:
        from accelerate import Accelerator
        from transformers import get_scheduler

        self.config, self.folder, self.step = config, folder, 0
        self._accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulate,
            cpu=without_gpu(),
        )
        self._trained = [value for value in task.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(
            self._trained,
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
        schedule = get_scheduler(config.schedule, optimizer, config.warmup, config.steps)
        self._task, self._optimizer = self._accelerator.prepare(task, optimizer)
        self._schedule = schedule
        self._accelerator.register_for_checkpointing(schedule)
        self._ema = self._average()
        self._rows: list[dict[str, Any]] = []
        self._open()

    @property
    def place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return self._accelerator.process_index, self._accelerator.num_processes

    def progress(self):
        """A progress bar that stands where the run stands."""
        from tqdm.auto import tqdm

        return tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=self.folder.name,
            disable=not self._accelerator.is_main_process,
        )

    def advance(self, micro: Iterator[Any]) -> dict[str, float]:
        """One optimiser step; returns its losses, averaged over micro-steps and processes."""
        from accelerate.utils import send_to_device

        rank, processes = self.place
        total: dict[str, torch.Tensor] = {}
        self._task.train()
        for part in range(self.config.accumulate):
            index = self.step * self.config.accumulate + part
            batch = send_to_device(next(micro), self._accelerator.device)
            torch.manual_seed((self.config.seed << 32) + index * processes + rank)
            with self._accelerator.accumulate(self._task):
                losses = self._task(batch)
                self._accelerator.backward(losses.get("total", sum(losses.values())))
                if self._accelerator.sync_gradients:
                    self._accelerator.clip_grad_norm_(self._trained, self.config.max_norm)
                self._optimizer.step()
                self._optimizer.zero_grad()
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach().float() / self.config.accumulate
        self._schedule.step()
        if self._ema is not None:
            self._ema.step(self._trained)
        self.step += 1
        means = self._accelerator.reduce(total, reduction="mean")
        row = {name: float(value) for name, value in means.items()}
        if not all(map(torch.isfinite, means.values())):
            raise FloatingPointError(
                f"a loss is not finite at step {self.step}: {row}. Lower the learning rate, or use "
                'precision "bf16" or "no"'
            )
        self._rows.append({"step": self.step, **row})
        return row

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes something: all of them stop after the same step."""
        if self._accelerator.num_processes == 1:
            return wish
        wishes = torch.tensor([float(wish)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(wishes, reduction="sum"))

    def save(self, preview: Callable[[nn.Module, Path], None] | None) -> None:
        """Write the checkpoint, complete or not at all, then losses, curves and previews."""
        partial, whole = self.folder / "checkpoint.partial", self.folder / "checkpoint"
        self._accelerator.save_state(str(partial))
        self._accelerator.wait_for_everyone()  # each process has a file of its own in it
        if not self._accelerator.is_main_process:
            return
        (partial / "step.json").write_text(json.dumps({"step": self.step}))
        old = self.folder / "checkpoint.old"
        if whole.exists():
            whole.replace(old)
        partial.replace(whole)
        shutil.rmtree(old, ignore_errors=True)
        self._write_losses()
        if preview is not None:
            (self.folder / "previews").mkdir(exist_ok=True)
            with self._averaged(), torch.no_grad():
                task = self._accelerator.unwrap_model(self._task).eval()
                preview(task, self.folder / "previews" / f"{self.step:07d}.png")

    def finish(self) -> nn.Module:
        """The trained task with the weights to keep."""
        from accelerate.state import AcceleratorState

        if self._ema is not None:
            self._ema.copy_to(self._trained)
        self._accelerator.wait_for_everyone()  # not end_training: it parts processes for good
        AcceleratorState._reset_state()  # the next run may want another precision
        return self._accelerator.unwrap_model(self._task).eval()

    def _average(self) -> Any:
        if self.config.ema is None:
            return None
        from diffusers.training_utils import EMAModel

        average = EMAModel(self._trained, decay=self.config.ema, use_ema_warmup=True, power=0.75)
        self._accelerator.register_for_checkpointing(average)
        return average

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self._ema is None:
            yield
            return
        self._ema.store(self._trained)
        self._ema.copy_to(self._trained)
        try:
            yield
        finally:
            self._ema.restore(self._trained)

    def _open(self) -> None:
        """Create the folder, or take up the run that it holds."""
        with self._accelerator.main_process_first():  # the others find what the first one wrote
            self._settle()
        whole = self.folder / "checkpoint"
        if not whole.exists():
            return
        self._accelerator.load_state(str(whole))
        self.step = json.loads((whole / "step.json").read_text())["step"]
        with (self.folder / "losses.csv").open(newline="") as file:
            rows = [{**row, "step": int(row["step"])} for row in csv.DictReader(file)]
        self._rows = [row for row in rows if row["step"] <= self.step]

    def _settle(self) -> None:
        """Write the settings, or check them against those that are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = json.loads(json.dumps(asdict(self.config)))
        path = self.folder / "config.json"
        if path.exists():
            theirs = json.loads(path.read_text())
            free = {"save_every", "workers"}
            if changed := [key for key in ours if key not in free and ours[key] != theirs.get(key)]:
                raise ValueError(
                    f"{self.folder} holds a run with other settings ({', '.join(changed)}): take "
                    "the same settings to go on with it, or another folder"
                )
        path.write_text(json.dumps(ours, indent=1))
        old, whole = self.folder / "checkpoint.old", self.folder / "checkpoint"
        if old.exists() and not whole.exists():  # killed between two renames
            old.replace(whole)

    def _write_losses(self) -> None:
        from ..plots import loss_curves

        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with (self.folder / "losses.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)
        loss_curves(self._rows).save(self.folder / "losses.png")


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that is filled when SIGINT or SIGTERM comes; a second one acts at once."""
    caught: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        for kind in kinds:
            signal.signal(kind, before[kind])

    try:
        before = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # not the main thread
        yield caught
        return
    try:
        yield caught
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
