"""What the training commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .. import emit, say
from ..options import Natural, Positive, given

if TYPE_CHECKING:
    from ...training.config import LoopConfig
    from ...training.stages import Sources, StageConfig

Output = Annotated[Path, Parameter(help="Folder of the run. Run again to go on.")]
TrainDevice = Annotated[
    str, Parameter(help="auto (a GPU if there is one) or cpu; CUDA_VISIBLE_DEVICES chooses GPUs.")
]
Phrases = Annotated[Path | None, Parameter(help="A copy of roberta-base, for the alignment loss.")]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """What is learned from.

    Attributes:
        matching: Captions and hard negatives: .jsonl or .tsv.
        grounding: Phrases and boxes: .jsonl or RefCOCO .json.
        images: Folder that image names are relative to.
        latents: Folder for latents, computed once; recommended.
    """

    matching: Path
    grounding: Path
    images: Path
    latents: Path | None = None

    def sources(self) -> Sources:
        """The settings of the core."""
        from ...training.stages import Sources

        return Sources(**vars(self))


@Parameter(name="*")
@dataclass(frozen=True)
class LoopOptions:
    """Optimisation; what is not given has its published value.

    Attributes:
        steps: Optimiser steps.
        batch_size: Examples per process and micro-step.
        accumulate: Micro-steps per optimiser step.
        learning_rate: Learning rate.
        precision: no, fp16 or bf16; on the CPU no unless given.
        save_every: Steps between checkpoints.
        workers: Processes that read data.
    """

    steps: Positive | None = None
    batch_size: Positive | None = None
    accumulate: Positive | None = None
    learning_rate: float | None = None
    precision: str | None = None
    save_every: Positive | None = None
    workers: Natural | None = None

    def stage(self, published: StageConfig, device: Any, **more: Any) -> StageConfig:
        """A stage's published settings with what was given.

        Args:
            published: the settings.
            device: where is trained.
            more: settings of the stage beside the loop's.
        """
        return replace(published, loop=self.over(published.loop, device), **more)

    def over(self, settings: LoopConfig, device: Any) -> LoopConfig:
        """Settings with what was given in the place of their own."""
        precision = {"precision": "no"} if device.type == "cpu" else {}
        return replace(settings, **(precision | given(self)))


def training_device(name: str) -> Any:
    """This process's device, as accelerate deals them out.

    Raises:
        ValueError: a device is asked for that accelerate does not deal out.
    """
    if name not in ("auto", "cpu"):
        raise ValueError(
            f"training computes on auto or cpu; got {name!r}. CUDA_VISIBLE_DEVICES chooses a GPU"
        )
    from ...distributed import process_state

    return process_state(name == "cpu").device


def carry_out(work: Callable[..., Path | None], *arguments: Any) -> None:
    """Train, and say what was written.

    Raises:
        KeyboardInterrupt: the run was asked to stop, with how to go on.
    """
    from ...training.loop import Interrupted

    say("training …")
    try:
        made = work(*arguments)
    except Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from stopped
    if made is not None:
        emit(f"wrote {made}")
