"""What the commands share: options, errors of users, models from folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..evaluation.arms import Models

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, mps.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance scale, above 1.")]
Strength = Annotated[
    float, typer.Option(min=0, help="Self-correction: the paper's guidance factor; 0 is off.")
]
Start = Annotated[float, typer.Option(min=0, max=1, help="Correct from this part of sampling on.")]
End = Annotated[float, typer.Option(min=0, max=1, help="Correct up to this part of sampling.")]
Every = Annotated[int, typer.Option(min=1, help="Correct every n-th step.")]
RULE = typer.Option(help="Size of a correction: published, normalised or annealed.")
Rule = Annotated[str, RULE]
InnerSteps = Annotated[int, typer.Option(min=1, help="Corrections in a row at each step.")]
MODE = typer.Option(help="What the gradient moves: exact, lagged or guidance.")
Mode = Annotated[str, MODE]
Timestep = Annotated[int, typer.Option(min=0, max=999, help="Noise level at which is scored.")]
Draws = Annotated[int, typer.Option(min=1, help="Noise draws that a score is averaged over.")]
Weights = Annotated[
    Path | None, typer.Option(help="Folder with the demo model's files, if not those that ship.")
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Show what a user can change as a message, with exit code 2, and not as a traceback."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: it is not.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot compute on device {device!r}: {reason}") from error


def demo_models(weights: Path | None, device: str) -> Models:
    """The demo model with and without its LoRA.

    Raises:
        FileNotFoundError, ValueError: see :func:`~dpt_core.demo.load.load_demo`.
    """
    from ..demo.load import load_demo
    from ..demo.model import FOLDER
    from ..evaluation.arms import Models

    check_device(device)
    demo = load_demo(weights or FOLDER)
    return Models.of(demo.pipeline, demo.checkpoint, device)


def load_pipeline(folder: Path, device: str) -> Any:
    """A diffusers model directory as a pipeline; nothing is downloaded.

    Raises:
        ValueError: the folder holds no pipeline that this package understands.
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no model directory at {folder}")
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder} is no diffusers model directory: it has no model_index.json. A single "
            "checkpoint file can be converted with diffusers"
        )
    import torch
    from diffusers import DiffusionPipeline

    check_device(device)
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.float16
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    lacking = [name for name in ("unet", "vae", "text_encoder", "scheduler")
               if getattr(pipeline, name, None) is None]  # fmt: skip
    if lacking:
        raise ValueError(
            f"{folder} is no Stable Diffusion 1.x, 2.x or SDXL: it has no {', '.join(lacking)}"
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def quiet() -> None:
    """Keep the libraries' remarks out of the output."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
