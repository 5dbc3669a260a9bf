"""`dpt convert`."""

from __future__ import annotations

from pathlib import Path

from . import emit


def convert(source: Path, target: Path, /, *, tap: str = "up1", text: str = "eos_hidden") -> None:
    """Convert a published checkpoint to safetensors with its config.

    For example:

        dpt convert pytorch_model.bin dpt-sd21-base.safetensors

    Args:
        source: A published pytorch_model.bin.
        target: The .safetensors file to write.
        tap: Where the adapter reads the UNet.
        text: The adapter's text vector.
    """
    from ..checkpoint import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint(source, tap=tap, text=text)
    save_checkpoint(target, checkpoint)
    lora = f"{len(checkpoint.lora)} LoRA tensors" if checkpoint.lora else "no LoRA (stage 1)"
    count = len(checkpoint.adapter.state_dict())
    emit(f"{target}: {count} adapter tensors, {lora}, tap {checkpoint.config.tap}")
