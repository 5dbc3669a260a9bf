"""Latents of all pictures of some data: made once, kept on disk, taken in place of the pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from .data.images import Picture, PictureSource
from .data.rows import CaptionedPictures
from .features import in_shards
from .loop import Interrupted
from .observer import Observer

AT_ONCE = 8
"""Pictures that are encoded together, and that a file keeps."""

Encode = Callable[[torch.Tensor], torch.Tensor]
"""From pictures `[B, 3, H, W]` in [-1, 1] to latents `[B, ...]`."""


class EncodedPictures:
    """Latents in place of pictures, in half precision (a `PictureSource`).

    Args:
        pictures: the pictures.
        latents: by name, with the sizes of the pictures.
    """

    def __init__(self, pictures: PictureSource, latents: Mapping[str, Picture]) -> None:
        self.folder, self.size = pictures.folder, pictures.size
        self._pictures, self._latents = pictures, latents

    def __call__(self, name: str, where: str, rng: random.Random | None = None) -> Picture:
        latent, width, height = self._latents[name]
        return Picture(latent.float(), width, height)

    def bytes_of(self, name: str, where: str) -> int:
        return self._pictures.bytes_of(name, where)


def encode_all(
    encode: Encode, data: CaptionedPictures, folder: Path, observer: Observer
) -> dict[str, Picture]:
    """Latents of all pictures by name, `[C, h, w]` float16; kept in a folder named by the data.

    Raises:
        Interrupted: the observer stopped it; what is done stays.
    """
    names = data.names()
    listed, total = list(names), len(names)

    def make(indices: range) -> dict[str, torch.Tensor]:
        if observer.stopped():
            raise Interrupted("stopped while encoding pictures")
        some = [listed[index] for index in indices]
        read = [data.images(name, names[name], None) for name in some]
        sizes = torch.tensor([[each.width, each.height] for each in read])
        latents = encode(torch.stack([each.tensor for each in read])).half().cpu()
        return {"latents": latents.clone(), "sizes": sizes}

    def progress(done: int) -> None:
        observer.progress(f"encoding pictures: {done} of {total}", done, total)

    place = folder / data.digest()
    shards = in_shards(place, total, AT_ONCE, make, progress)
    read = [
        Picture(latent, *size)
        for shard in shards
        for latent, size in zip(shard["latents"], shard["sizes"].tolist(), strict=True)
    ]
    return dict(zip(listed, read, strict=True))
