"""The `dpt` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..training import cli as train
from . import benchmarks, evaluate
from .common import user_errors
from .demo import demo
from .pictures import generate, score

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(demo)
app.command()(generate)
app.command()(score)
evaluate.app.command()(benchmarks.generation)
evaluate.app.command()(benchmarks.discrimination)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")


@app.callback()
def main() -> None:
    """Discriminative probing and tuning for text-to-image generation."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published pytorch_model.bin.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    tap: Annotated[str, typer.Option(help="Where the adapter reads the UNet.")] = "up1",
    text: Annotated[str, typer.Option(help="The adapter's text vector.")] = "eos_hidden",
) -> None:
    """Convert a published checkpoint to safetensors with its config."""
    from ..checkpoint import load_checkpoint, save_checkpoint

    with user_errors():
        checkpoint = load_checkpoint(source, tap=tap, text=text)
        save_checkpoint(target, checkpoint)
    lora = f"{len(checkpoint.lora)} LoRA tensors" if checkpoint.lora else "no LoRA (stage 1)"
    count = len(checkpoint.adapter.state_dict())
    typer.echo(f"{target}: {count} adapter tensors, {lora}, tap {checkpoint.config.tap}")
