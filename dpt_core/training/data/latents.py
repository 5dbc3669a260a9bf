"""Latents computed once: every distinct image of a data set, encoded, in safetensors shards.

A folder holds `index.json` (image names in order, lengths of their files, image size, name of the
VAE) and `latents-00000.safetensors`, … with `shard_size` images each: `sizes` `[n, 2]`, the images'
(width, height) in pixels, and either `latent` or `mean` and `std`, `[n, C, h, w]`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open

from .datasets import GroundingDataset, MatchingDataset, mentioned_images
from .examples import DataError
from .images import Picture

Reader = TypeVar("Reader", MatchingDataset, GroundingDataset)

INDEX = "index.json"

COMPARED = 500
"""Images whose file length is compared when latents are used, if the images are there."""


def with_latents(dataset: Reader, folder: str | Path, vae: str | None = None) -> Reader:
    """The same examples with precomputed latents in place of images.

    `images` become `[3, C, h, w]` and `image` `[C, h, w]`, float32. Where mean and standard
    deviation are stored, a latent is drawn from them, like everything else, by index and seed. The
    image files are not needed any more; those still there are compared with the latents.

    Args:
        dataset: a reader; it is left as it is.
        folder: what :func:`precompute` wrote.
        vae: name of the VAE they must come from, if given.

    Raises:
        DataError: no or not all latents there, or those of another data set, size or VAE.
    """
    latents = LatentFolder(folder)
    latents.check(dataset, vae)
    dataset = copy.copy(dataset)
    dataset.images = latents
    return dataset


@dataclass(frozen=True)
class LatentIndex:
    """What a folder of latents holds.

    Attributes:
        size: side of the square images in pixels.
        vae: name of the VAE.
        shard_size: images per shard.
        names: image names in the order of the shards.
        lengths: of the image files, in bytes.
    """

    size: int
    vae: str
    shard_size: int
    names: list[str]
    lengths: list[int]

    @classmethod
    def read(cls, folder: Path) -> LatentIndex:
        path = folder / INDEX
        if not path.is_file():
            raise DataError(f"no latents at {folder}: expected {INDEX}. Run precompute() first")
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} is not what precompute() writes ({error}). Delete the folder and "
                "precompute again"
            ) from error

    @property
    def shards(self) -> int:
        """How many shards hold all images."""
        return -(-len(self.names) // self.shard_size)

    @cached_property
    def digest(self) -> str:
        """What marks the shards that belong to this index."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def names_of(self, shard: int) -> list[str]:
        """The images of a shard, in order."""
        return self.names[shard * self.shard_size : (shard + 1) * self.shard_size]


class LatentFolder:
    """Latents by image name (a :class:`~.images.PictureSource`).

    Args:
        folder: what :func:`precompute` wrote.

    Raises:
        DataError: nothing there, or not all of it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._index = LatentIndex.read(self.folder)
        self.size = self._index.size
        self._positions = {name: position for position, name in enumerate(self._index.names)}
        done = sum(is_done(self.folder, shard, self._index) for shard in range(self._index.shards))
        if done < self._index.shards:
            raise DataError(
                f"{self.folder}: expected {self._index.shards} shards of latents; got {done}. Run "
                "precompute() again: it goes on where it stopped"
            )

    def __call__(self, name: str, where: str, rng: random.Random) -> Picture:
        """The latent of an image.

        Raises:
            DataError: no latent of that name, or a broken file.
        """
        if name not in self._positions:
            raise DataError(f"{where}: no latent of {name} in {self.folder}. Precompute again")
        shard, row = divmod(self._positions[name], self._index.shard_size)
        path = shard_path(self.folder, shard)
        try:
            with safe_open(path, "pt") as file:
                width, height = file.get_slice("sizes")[row].tolist()
                keys = ("mean", "std") if "mean" in file.keys() else ("latent",)
                parts = [file.get_slice(key)[row].float() for key in keys]
        except (SafetensorError, OSError) as error:
            raise _broken(path, error) from error
        return Picture(parts[0] if len(parts) == 1 else _draw(*parts, rng), width, height)

    def bytes_of(self, name: str, where: str) -> int:
        """Length in bytes of the image file that a latent was made from."""
        if name not in self._positions:
            raise DataError(f"{where}: no latent of {name} in {self.folder}. Precompute again")
        return self._index.lengths[self._positions[name]]

    def check(self, dataset: MatchingDataset | GroundingDataset, vae: str | None) -> None:
        """Raise a :class:`DataError` if these are not the latents of that data set."""
        remedy = "Give the folder made for it, or precompute into a new one"
        if dataset.images.size != self.size:
            raise DataError(
                f"{self.folder}: expected latents of images of {dataset.images.size} pixels; got "
                f"{self.size}. {remedy}"
            )
        if vae is not None and vae != self._index.vae:
            raise DataError(
                f"{self.folder}: expected latents by the VAE {vae!r}; got {self._index.vae!r}. "
                f"{remedy}"
            )
        mentions = mentioned_images(dataset)
        if missing := [name for name in mentions if name not in self._positions]:
            raise DataError(
                f"{mentions[missing[0]]}: {self.folder} belongs to another data set: it has no "
                f"latents of {len(missing)} of {len(mentions)} images, e.g. {missing[0]}. {remedy}"
            )
        for name in list(mentions)[:: len(mentions) // COMPARED + 1]:
            path, length = dataset.images.folder / name, self.bytes_of(name, "")
            if path.is_file() and path.stat().st_size != length:
                raise DataError(
                    f"{mentions[name]}: {self.folder} belongs to another data set: its {name} has "
                    f"{length} bytes; {path} has {path.stat().st_size}. {remedy}"
                )


def shard_path(folder: Path, shard: int) -> Path:
    """File of a shard, counted from 0."""
    return folder / f"latents-{shard:05d}.safetensors"


def is_done(folder: Path, shard: int, index: LatentIndex) -> bool:
    """Whether a shard is there; one of another index is an error."""
    path = shard_path(folder, shard)
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            digest = (file.metadata() or {}).get("index")
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error
    if digest != index.digest:
        raise DataError(f"{path} does not belong to {folder / INDEX}. Delete it, precompute again")
    return True


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a whole safetensors file ({error}). Delete it, precompute again"
    )


def _draw(mean: torch.Tensor, std: torch.Tensor, rng: random.Random) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    return mean + std * torch.randn(mean.shape, generator=generator)
