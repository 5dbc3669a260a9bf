"""Texts as conditionings, each encoded once: in memory, and on disk where they are too many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ...dpt_core.files import write_tensors
from .texts import TEXT_KEY

MEMORY = 2 * 2**30
"""Bytes of conditionings that stay in main memory: a T5 takes 2 MB for each text."""

HIDDEN = "cross_attn"
"""What the embedding is called beside the other tensors of a conditioning."""

Encode = Callable[[str], list]
"""From a text to the host's CONDITIONING with its text vectors; see :mod:`.encode`."""

Tensors = dict[str, torch.Tensor]


class HostTexts:
    """Texts as conditionings.

    Args:
        encode: encodes a text.
        backbone: knows which of the text vectors are the model's.
        folder: where those go that memory does not hold; None keeps all in memory.
        memory: bytes of them that stay there.

    Attributes:
        source: of the text vectors.
    """

    def __init__(
        self, encode: Encode, backbone: Any, folder: Path | None = None, memory: int = MEMORY
    ) -> None:
        self._encode, self._backbone = encode, backbone
        self._folder, self._free = folder, memory
        self.source = backbone.texts[0]
        self._tensors: dict[str, Tensors | None] = {}  # None: on disk
        self._others: dict[str, dict[str, Any]] = {}
        self._shapes: dict[str, tuple] = {}
        self._vectors: Tensors = {}

    def add(self, text: str) -> None:
        """Encode a text, if it is new.

        Raises:
            ValueError: the text encoder does not give the vector that adapters of this family use.
        """
        if text in self._tensors:
            return
        ((hidden, extra),) = self._encode(text)
        extra = {**extra, HIDDEN: hidden}
        vector = extra.pop(TEXT_KEY).get(self.source)
        if self.source == "pooled":
            vector = self._backbone.from_pooled(self.source, vector)
        if vector is None:
            raise ValueError(
                f"adapters for {self._backbone.family} compare with the text vector "
                f"{self.source!r}, which the wired text encoder does not give: wire the CLIP that "
                "belongs to the model"
            )
        tensors = {key: each.cpu() for key, each in extra.items() if torch.is_tensor(each)}
        self._others[text] = {key: each for key, each in extra.items() if key not in tensors}
        self._shapes[text] = tuple((key, tuple(each.shape)) for key, each in tensors.items())
        self._vectors[text] = vector.cpu().float()
        self._free -= sum(each.numel() * each.element_size() for each in tensors.values())
        if self._folder is not None and self._free < 0:
            write_tensors(self._file(text), tensors, durable=False)
            tensors = None
        self._tensors[text] = tensors

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Text vectors `[R, D]`."""
        for text in texts:
            self.add(text)
        return torch.cat([self._vectors[text] for text in texts])

    def groups(self, texts: Sequence[str]) -> list[list[int]]:
        """Rows whose conditionings have the same shapes: only those can pass together."""
        found: dict[tuple, list[int]] = {}
        for row, text in enumerate(texts):
            self.add(text)
            found.setdefault(self._shapes[text], []).append(row)
        return list(found.values())

    def joined(self, texts: Sequence[str]) -> list:
        """One CONDITIONING with a row for each text; all are of one group."""
        entries = [self._read(text) for text in texts]
        tensors = {
            key: torch.cat([each[key] for each in entries])
            if first.ndim and len(first) == 1
            else first
            for key, first in entries[0].items()
        }
        return [[tensors.pop(HIDDEN), {**self._others[texts[0]], **tensors}]]

    def _read(self, text: str) -> Tensors:
        kept = self._tensors[text]
        return load_file(self._file(text)) if kept is None else kept

    def _file(self, text: str) -> Path:
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
