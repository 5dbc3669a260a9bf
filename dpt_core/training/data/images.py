"""Pictures by name: read, made square, brought to [-1, 1]."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image

from .examples import DataError
from .lines import shorten

LARGEST = 4096
"""Side of the largest squares, in pixels: one of them takes 200 MB."""


class Picture(NamedTuple):
    """A picture ready for training, and how large it was.

    Attributes:
        tensor: image `[3, size, size]` in [-1, 1] or latent `[C, h, w]`, float32.
        width, height: of the file, in pixels; boxes are given in these.
    """

    tensor: torch.Tensor
    width: int
    height: int


class PictureSource(Protocol):
    """Where a data set takes its pictures from: an image folder or precomputed latents.

    Attributes:
        folder: what image names are relative to.
        size: side of the square picture, in pixels.
    """

    folder: Path
    size: int

    def __call__(self, name: str, where: str, rng: random.Random) -> Picture:
        """The picture of that name, which `where` (a file and line) mentions."""

    def bytes_of(self, name: str, where: str) -> int:
        """Length in bytes of the image's file."""


def check_size(size: int) -> None:
    """Refuse a side of square pictures that no model is trained with.

    Raises:
        DataError: it is none.
    """
    if size < 8 or size % 8 or size > LARGEST:
        raise DataError(
            f"the image size must be a positive multiple of 8 pixels, which the VAE can encode, up "
            f"to {LARGEST}; got {size}. Stable Diffusion 1.x and 2.x base were trained at 512"
        )


class ImageFolder:
    """Images of a folder as squares in [-1, 1].

    The whole image is resized to the square, bilinearly with antialiasing, without keeping its
    aspect and without cropping: the published recipe. Nothing a caption or box speaks of is cut
    off, and boxes in parts of the image's sides stay as they are. Pixels are taken as stored: an
    EXIF orientation is not applied, as in COCO's boxes. Transparency is dropped.

    Args:
        folder: what image names are relative to.
        size: side of the square in pixels, a multiple of 8.

    Raises:
        DataError: no such folder, or an impossible size.
    """

    def __init__(self, folder: str | Path, size: int) -> None:
        from torchvision.transforms import v2  # late: the host imports this file when it starts

        self.folder, self.size = Path(folder), size
        check_size(size)
        if not self.folder.is_dir():
            raise DataError(
                f"no image folder at {self.folder}: give the folder that the image names are "
                "relative to"
            )
        self._transform = v2.Compose(
            [
                v2.Resize((size, size), v2.InterpolationMode.BILINEAR, antialias=True),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __call__(self, name: str, where: str, rng: random.Random | None = None) -> Picture:
        """Read an image of the folder.

        Args:
            name: its path relative to the folder.
            where: the file and line that mention it, for messages.
            rng: not used.

        Raises:
            DataError: missing, or not an image that Pillow can read.
        """
        path = self._path(name, where)
        try:
            with Image.open(path) as image:
                width, height = image.size
                tensor = self._transform(image.convert("RGB"))
        except FileNotFoundError as error:
            raise _missing(path, where) from error
        # Pillow reports broken files in all of these ways.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{where}: expected an image that Pillow can read; {path} is none ({error}). "
                "Replace it, or remove the line"
            ) from error
        return Picture(tensor.as_subclass(torch.Tensor), width, height)

    def bytes_of(self, name: str, where: str) -> int:
        """Length of an image's file in bytes.

        Raises:
            DataError: the file is missing.
        """
        return self._path(name, where).stat().st_size

    def _path(self, name: str, where: str) -> Path:
        """The file of an image: a regular one, under a name that stays in the folder.

        Raises:
            DataError: there is none, or it lies elsewhere.
        """
        path = self.folder / name
        outside = Path(name).is_absolute() or os.path.normpath(name).split(os.sep)[0] == ".."
        try:
            there = path.is_file()  # a pipe, which would be waited for, is none
        except (OSError, ValueError) as error:  # a name too long, or with a zero in it
            raise DataError(
                f"{where}: expected the name of an image; got {shorten(name)} "
                f"({getattr(error, 'strerror', None) or error}). Correct it"
            ) from error
        if outside:
            raise DataError(
                f"{where}: expected an image in {self.folder}; {shorten(name)} lies elsewhere. "
                "Correct the name, or give the folder that holds all images"
            )
        if not there:
            raise _missing(path, where)
        return path


def _missing(path: Path, where: str) -> DataError:
    return DataError(
        f"{where}: expected an image at {path}; there is no such file. Correct the name, or the "
        "image folder that it is relative to"
    )
