"""The training loop: one for every stage, driven by accelerate, or alone on one device.

A run lives in a folder: `config.json` (settings), `checkpoint.safetensors` (everything it needs to
go on, see :mod:`.state`), and what is drawn from it: `losses.csv`, its curves `losses.png` and
`previews/`. Everything random in step k is drawn from a seed made of the run's seed and k, and
every file is written complete or not at all, so a run that was killed at any instruction goes on
exactly as if it had not been.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..distributed import slow_bf16, without_gpu
from ..files import complete, write_text
from .alone import Alone, to_device
from .batches import Batches
from .config import LoopConfig
from .optimizers import new_optimizer
from .state import Row, RunError, RunState, settle

logger = logging.getLogger(__name__)

CONFIG, CHECKPOINT = "config.json", "checkpoint.safetensors"

Losses = Mapping[str, torch.Tensor]
"""Name → scalar. What is minimised is `total`, or without one the sum."""

Preview = Callable[[nn.Module, Path], None]
"""Draws what a task has learned into a picture file."""

Watch = Callable[[Row], bool]
"""Sees the losses of every step; True ends the run, which can go on later."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


def train(
    task: nn.Module,
    data: Dataset,
    config: LoopConfig,
    folder: str | Path,
    *,
    collate: Callable[[list], Any] | None = None,
    preview: Preview | None = None,
    about: Mapping[str, Any] | None = None,
    alone: torch.device | None = None,
    watch: Watch | None = None,
) -> nn.Module:
    """Train a task to its last step, going on from the folder's checkpoint if it has one.

    Args:
        task: called with a batch, it returns :data:`Losses`. Its parameters that require a
            gradient are trained.
        data: a map-style data set.
        config: optimisation settings.
        folder: where the run lives.
        collate: makes a batch of a list of examples.
        preview: called with the task and a file in `previews/` at each checkpoint.
        about: what else makes the run what it is, JSON by name: its data, weights, tap. A folder
            whose run has another is refused.
        alone: train in this process on this device, where the task lies, without accelerate.
        watch: called after every step.

    Returns:
        The task, with averaged weights where `config.ema` asks for them.

    Raises:
        RunError: the folder holds a run with other settings, or a damaged one.
        Interrupted: SIGINT or SIGTERM came, or `watch` said so; call again to go on.
    """
    run = TrainingRun(task, config, Path(folder), about or {}, alone)
    run.draw(preview)  # what a kill after the last checkpoint left out
    with run.progress() as bar, _stop_signal() as stop:
        batches = Batches(len(data), config, run.step * config.accumulate, *run.rank_of)
        loader = DataLoader(
            data, batch_sampler=batches, collate_fn=collate, num_workers=config.workers
        )
        micro = iter(loader)
        while run.step < config.steps:
            losses = run.advance(micro)
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()})
            wish = watch is not None and watch(run.last)
            done, asked = run.step == config.steps, run.agree(bool(stop) or wish)
            if asked or done or run.step % config.save_every == 0:
                run.save()
                run.draw(preview)
            if asked and not done:
                raise Interrupted(f"stopped after step {run.step}; run the command again to go on")
    return run.finish()


class TrainingRun:
    """One run: accelerate's objects, the steps done, and the files."""

    def __init__(
        self,
        task: nn.Module,
        config: LoopConfig,
        folder: Path,
        about: Mapping[str, Any],
        alone: torch.device | None = None,
    ) -> None:
        from transformers import get_scheduler

        self.config, self.folder = config, folder
        self._accelerator = _accelerator(config) if alone is None else Alone(alone, config)
        self._trained = [value for value in task.parameters() if value.requires_grad]
        optimizer = new_optimizer(task, config)
        more = {"num_cycles": config.cosine_part / 2} if config.schedule == "cosine" else None
        self._schedule = get_scheduler(
            config.schedule, optimizer, config.warmup, config.steps, more
        )
        self._task, self._optimizer = self._accelerator.prepare(task, optimizer)
        self._average = self._new_average()
        scaler = self._accelerator.scaler
        self._state = RunState(task, optimizer, scaler, self._average)
        self._settings = json.loads(json.dumps(asdict(config) | dict(about)))
        self._rows: list[Row] = []
        self._open()

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return len(self._rows)

    @property
    def last(self) -> Row:
        """Losses of the last step."""
        return self._rows[-1]

    @property
    def rank_of(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes."""
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
        rank, processes = self.rank_of
        total: dict[str, torch.Tensor] = {}
        self._task.train()
        for part in range(self.config.accumulate):
            index = self.step * self.config.accumulate + part
            batch = to_device(next(micro), self._accelerator.device)
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
        if self._average is not None:
            self._average.step(self._trained)
        step = self.step + 1
        means = self._accelerator.reduce(total, reduction="mean")
        row = {name: float(value) for name, value in means.items()}
        if not all(map(torch.isfinite, means.values())):
            raise FloatingPointError(
                f"a loss is not finite at step {step}: {row}. Lower the learning rate, or use "
                'precision "bf16" or "no"'
            )
        self._rows.append({"step": step, **row})
        return row

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes something: all of them stop after the same step."""
        if self._accelerator.num_processes == 1:
            return wish
        wishes = torch.tensor([float(wish)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(wishes, reduction="sum"))

    def save(self) -> None:
        """Write the checkpoint, complete or not at all.

        Raises:
            OSError: it cannot be written, for example on a full disk; the last one stays.
        """
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            self._state.save(self.folder / CHECKPOINT, self._rows, self._settings)

    def draw(self, preview: Preview | None) -> None:
        """Losses, curves and a preview of the checkpoint. Training does not end for want of one."""
        if not self._accelerator.is_main_process or not self.step:
            return
        path = self.folder / "previews" / f"{self.step:07d}.png"
        try:
            self._write_losses()
            if preview is not None and not path.exists():
                path.parent.mkdir(exist_ok=True)
                with self._averaged(), torch.no_grad():
                    preview(self._accelerator.unwrap_model(self._task).eval(), path)
        except Exception:  # whatever drawing ends in, the training is worth more
            logger.warning("no curves or preview of step %d", self.step, exc_info=True)

    def finish(self) -> nn.Module:
        """The trained task with the weights to keep."""
        if self._average is not None:
            self._average.copy_to(self._trained)
        self._accelerator.wait_for_everyone()  # not end_training: it parts processes for good
        if not isinstance(self._accelerator, Alone):
            from accelerate.state import AcceleratorState

            AcceleratorState._reset_state()  # the next run may want another precision
        return self._accelerator.unwrap_model(self._task).eval()

    def _new_average(self) -> Any:
        if self.config.ema is None:
            return None
        from diffusers.training_utils import EMAModel

        return EMAModel(self._trained, decay=self.config.ema, use_ema_warmup=True, power=0.75)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self._average is None:
            yield
            return
        self._average.store(self._trained)
        self._average.copy_to(self._trained)
        try:
            yield
        finally:
            self._average.restore(self._trained)

    def _open(self) -> None:
        """Create the folder, or take up the run that it holds."""
        with self._accelerator.main_process_first():  # the others find what the first one wrote
            self._settle()
        path = self.folder / CHECKPOINT
        if path.exists():
            self._rows = self._state.load(path, self._settings)
            place = {"last_epoch": self.step, "_step_count": self.step + 1}
            self._schedule.load_state_dict(self._schedule.state_dict() | place)

    def _settle(self) -> None:
        """Write the settings, or check them against those that are there."""
        if (self.folder / "checkpoint").exists():
            raise RunError(
                f"{self.folder} holds a run of an earlier version of this pack, whose files could "
                "run code: take another folder"
            )
        settle(self.folder / CONFIG, self._settings, f"Delete it: they are in {CHECKPOINT}, too")

    def _write_losses(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, names)
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.folder / "losses.csv", table.getvalue())
        from ..plots import loss_curves

        with complete(self.folder / "losses.png") as partial:
            loss_curves(self._rows).save(partial, format="png")


def _accelerator(config: LoopConfig) -> Any:
    from accelerate import Accelerator

    precision = config.precision
    if precision == "bf16" and slow_bf16():
        logger.warning("this CPU has no instructions for bf16: computing in float32, far faster")
        precision = "no"
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulate,
        cpu=without_gpu(),
    )


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
