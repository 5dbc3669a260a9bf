"""Files of tensors as `torch.save` writes them, from strangers: nothing in them runs.

Beyond `weights_only=True` the sizes that a file claims are compared with its own: a few bytes can
claim tensors of terabytes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

MOST_TENSORS = 20_000
"""Tensors in a file; the LoRA of the largest models has some thousands."""

LARGEST_PICKLE = 2**24
"""Bytes of a file's table of contents."""


class TorchFileError(ValueError):
    """A file is no dictionary of tensors, or is damaged."""


def read_torch_file(path: Path) -> dict[str, torch.Tensor]:
    """Read a flat dictionary of tensors.

    Args:
        path: a file made by `torch.save`, of torch 1.6 or later.

    Returns:
        Names → dense tensors on the CPU, as many and as large as the file has bytes for.

    Raises:
        TorchFileError: something else is in it, or it is damaged; the message says what.
    """
    _check_archive(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or crafted pickle can end in any exception. None is shown: torch's own advice is to
    # load the file in the unsafe way.
    except Exception as error:
        raise TorchFileError(f"not tensors alone, or damaged: {type(error).__name__}") from None
    if not isinstance(tensors, dict):
        raise TorchFileError(f"expected a dictionary of tensors; got {type(tensors).__name__}")
    _check_tensors(tensors, path.stat().st_size)
    return tensors


def _check_archive(path: Path) -> None:
    """What torch would trust: that the archive is whole and no larger inside than outside."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile, too, has many ways to say that a file is damaged
        raise TorchFileError(
            f"not an archive made by torch.save, or damaged: {type(error).__name__}"
        ) from None
    if len(entries) > MOST_TENSORS + 10:  # each tensor is one, and there are a few besides
        raise TorchFileError(f"expected at most {MOST_TENSORS} entries; got {len(entries)}")
    inside = sum(entry.file_size for entry in entries)
    if inside > path.stat().st_size or any(entry.compress_type for entry in entries):
        raise TorchFileError(
            f"its entries claim {inside} bytes, the file has {path.stat().st_size}: damaged"
        )
    pickles = [entry.file_size for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0] > LARGEST_PICKLE:
        raise TorchFileError(f"expected one table of contents of at most {LARGEST_PICKLE} bytes")


def _check_tensors(tensors: dict, size: int) -> None:
    if len(tensors) > MOST_TENSORS:
        raise TorchFileError(f"expected at most {MOST_TENSORS} tensors; got {len(tensors)}")
    total = 0
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not torch.is_tensor(tensor):
            raise TorchFileError(
                f"expected names with tensors; got {key!r:.60} with {type(tensor).__name__}"
            )
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized:
            raise TorchFileError(f"tensor {key!r:.200} must be dense, not {tensor.layout}")
        needed = tensor.numel() * tensor.element_size()
        total += needed
        if max(needed, tensor.untyped_storage().nbytes()) > size or total > 2 * size:
            raise TorchFileError(
                f"tensor {key!r:.200} of shape {list(tensor.shape)} claims more bytes than the "
                f"file's {size}: damaged"
            )
