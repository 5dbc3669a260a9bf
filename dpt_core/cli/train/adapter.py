"""`dpt train adapter`: an adapter from captioned pictures, as the node in ComfyUI trains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ...training.observer import Observer
from .. import emit
from ..options import Device, Natural, Positive, given
from .options import Output, carry_out


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """How it is trained; what is not given has the default of the node.

    Attributes:
        recipe: recommended, or published for the paper's losses and sizes.
        tap: Where the adapter reads the model: up1, block7, or auto.
        steps: Steps of training.
        batch_size: Examples in a step.
        learning_rate: How fast it learns; 0 takes the recipe's.
        examples: Examples that the model reads once and that are kept; 0 for new ones every step.
        seed: Of everything random.
        save_every: Steps between checkpoints; 0 for ten in the run.
    """

    recipe: str | None = None
    tap: str | None = None
    steps: Positive | None = None
    batch_size: Positive | None = None
    learning_rate: float | None = None
    examples: Natural | None = None
    seed: Natural | None = None
    save_every: Natural | None = None


Negatives = Annotated[
    Literal["auto", "file", "none"],
    Parameter(help="Hard negatives: made of captions where the file names none; of the file; none"),
]


def adapter(
    model: Path,
    folder: Path,
    /,
    *,
    output: Output,
    size: Positive = 512,
    negatives: Negatives = "auto",
    run: RunOptions = RunOptions(),
    device: Device = "auto",
) -> None:
    """Train an adapter on a frozen model, from a folder of captioned pictures.

    The same as DPT Train Adapter in ComfyUI: hard negatives are made of the captions, and a tenth
    of the pictures tells how well it goes.

    For example:

        dpt train adapter MODEL_DIR pictures --output runs/mine

    Args:
        model: Diffusers model directory: SD 1.x, 2.x, SDXL, SD 3, Flux, Qwen-Image or Z-Image.
        folder: Pictures with a .txt of the same name beside each, or captions.jsonl.
        size: Side of the squares that pictures become, in pixels.
    """
    from ..loading import chosen_device, load_pipeline

    device = chosen_device(device)
    from ...negatives import hard_negatives
    from ...training.adapter_run import CHECKPOINT
    from ...training.backbone import Backbone
    from ...training.data.captioned import read_folder
    from ...training.data.images import check_size
    from ...training.data.rows import with_negatives
    from ...training.pipeline_run import train_on_pipeline
    from ...training.recipe import RunSettings

    check_size(size)
    settings = RunSettings(**given(run))  # before the model, which takes its time
    made = with_negatives(read_folder(folder, size), negatives, hard_negatives)
    emit(
        f"{len(made.data.names())} pictures, {made.captions} captions, {made.with_negative} with a "
        "hard negative"
    )
    backbone = Backbone.of(load_pipeline(model, device), str(model))

    def train() -> Path:
        with Bars() as observer:
            trained = train_on_pipeline(backbone, made.data, settings, output, observer)
        best, config = trained.best, trained.checkpoint.config
        trained.picture.save(output / "report.png")
        emit(
            f"tap {config.tap}, right text above wrong {best['itm']:.0%}, right picture "
            f"{best['itm_images']:.0%}, AUC {best['auc']:.2f} on held-out pictures; see "
            f"{output / 'report.png'}"
        )
        return output / CHECKPOINT

    carry_out(train)


class Bars(Observer):
    """A bar for each thing that is done. Ctrl-C is the loop's own affair."""

    def __enter__(self) -> Bars:
        from rich.console import Console
        from rich.progress import Progress

        self._bars = Progress(console=Console(stderr=True))
        self._bars.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        kind = what.split()[0].rstrip(":")
        if kind == "step":  # the training loop has a bar of its own
            self._bars.stop()
            return
        if kind not in self._tasks:
            self._tasks[kind] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[kind], description=what, completed=done, total=total)
