"""What tells files and weights apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn


def fingerprint(*modules: nn.Module, first: int | None = None) -> str:
    """A digest of all tensors of modules, 16 hexadecimal digits.

    Args:
        modules: the modules.
        first: look at so many values of each tensor only: enough to tell models apart that were
            trained, at no cost for the largest.
    """
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in module.state_dict().items():
            digest.update(key.encode())
            values = tensor.flatten()[:first].cpu().contiguous()
            digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """What a file holds, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(2**16):
            digest.update(piece)
    return digest.hexdigest()[:16]
