"""Encoding every image of a data set once; see :mod:`.latents` for what is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from .datasets import GroundingDataset, MatchingDataset, mentioned_images
from .examples import DataError
from .images import ImageFolder
from .latents import INDEX, LatentIndex, is_done, shard_path

Encode = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, torch.Tensor]]
"""Images `[b, 3, size, size]` in [-1, 1] to latents `[b, C, h, w]`, or to their mean and standard
deviation; already multiplied by the VAE's scaling factor. Finite; kept in the dtype given."""

Places = Sequence[tuple[str, str]]
"""Names of images with the file and line that mention them."""


def precompute(
    dataset: MatchingDataset | GroundingDataset | Sequence[MatchingDataset | GroundingDataset],
    encode: Encode,
    folder: str | Path,
    *,
    vae: str = "",
    batch_size: int = 8,
    shard_size: int = 1024,
    workers: int = 0,
    progress: bool = True,
) -> int:
    """Encode every distinct image of one or several data sets, each once.

    A shard is written whole or not at all: interrupted at any time and called again, this goes on
    after the last whole shard. Returns how many images were encoded now.

    Args:
        dataset: readers with images, of one image folder and one size.
        encode: the VAE's encoder (:data:`Encode`); images come to it on the CPU.
        folder: where the latents go; made if it is not there.
        vae: name of the VAE, noted to tell latents of different VAEs apart.
        batch_size: images that `encode` gets at once.
        shard_size: images per file.
        workers: processes that read images; 0 reads them in this one.
        progress: show a progress bar.

    Raises:
        DataError: an image is missing or broken, or has no finite latent; `folder` holds latents
            of other images, of another size or by another VAE.
    """
    from rich.progress import Progress

    datasets = dataset if isinstance(dataset, Sequence) else [dataset]
    images, mentions = _common_folder(datasets), mentioned_images(*datasets)
    lengths = [images.bytes_of(name, where) for name, where in mentions.items()]
    index = LatentIndex(images.size, vae, shard_size, list(mentions), lengths)
    folder = _claim(Path(folder), index)
    todo = [shard for shard in range(index.shards) if not is_done(folder, shard, index)]
    left = sum(len(index.names_of(shard)) for shard in todo)
    with Progress(disable=not progress or not todo) as bar:
        task = bar.add_task("Encoding images", total=len(mentions), completed=len(mentions) - left)
        for shard in todo:
            pictures = _Pictures(images, [(name, mentions[name]) for name in index.names_of(shard)])
            loader = pictures.loader(batch_size, workers)
            tensors = _encode(pictures, encode, loader, lambda count: bar.advance(task, count))
            _write(shard_path(folder, shard), index, tensors)
    return left


class _Pictures(Dataset):
    """Images with their sizes, for a loader."""

    def __init__(self, images: ImageFolder, names: Places) -> None:
        self.images, self.names = images, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tensor, width, height = self.images(*self.names[index])
        return tensor, torch.tensor([width, height])

    def loader(self, batch_size: int, workers: int) -> DataLoader:
        """Batches in order. Draws no random numbers that the training would miss."""
        return DataLoader(self, batch_size, num_workers=workers, generator=torch.Generator())


def _common_folder(datasets: Sequence[MatchingDataset | GroundingDataset]) -> ImageFolder:
    sources = [dataset.images for dataset in datasets]
    kinds = {(str(source.folder.resolve()), source.size) for source in sources}
    if len(kinds) != 1 or not isinstance(sources[0], ImageFolder):
        raise DataError(
            "expected readers with one common image folder and size; got "
            f"{sorted(kinds)}. Precompute each into a folder of its own"
        )
    return sources[0]


def _claim(folder: Path, index: LatentIndex) -> Path:
    """Write the index of a new folder, or make sure that an old one's says the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INDEX
    if not path.is_file():
        partial = path.with_suffix(".partial")
        partial.write_text(index.to_json(), "utf-8")
        partial.replace(path)
        return folder
    old = LatentIndex.read(folder)
    for what in ("size", "vae", "shard_size", "names", "lengths"):
        mine, theirs = getattr(index, what), getattr(old, what)
        if mine != theirs:
            if isinstance(mine, list):
                mine, theirs = f"those of {len(mine)} images", f"others, of {len(theirs)} images"
            raise DataError(
                f"{folder} holds latents of another data set: expected {what} {mine}; got "
                f"{theirs}. Precompute into a new folder, or delete this one"
            )
    return folder


def _encode(
    pictures: _Pictures, encode: Encode, loader: DataLoader, advance: Callable[[int], object]
) -> dict[str, torch.Tensor]:
    """The tensors of a shard."""
    pieces: dict[str, list[torch.Tensor]] = defaultdict(list)
    places = iter(pictures.names)
    for images, sizes in loader:
        with torch.no_grad():
            encoded = encode(images)
        keys = ("latent",) if isinstance(encoded, torch.Tensor) else ("mean", "std")
        encoded = (encoded,) if isinstance(encoded, torch.Tensor) else encoded
        _require_finite(encoded, list(islice(places, len(images))))
        for key, tensor in zip(("sizes", *keys), (sizes, *encoded), strict=True):
            pieces[key].append(tensor.detach().cpu())
        advance(len(images))
    return {key: torch.cat(tensors).contiguous() for key, tensors in pieces.items()}


def _require_finite(encoded: Iterable[torch.Tensor], places: Places) -> None:
    for tensor in encoded:
        for latent, (name, where) in zip(tensor, places, strict=True):
            if not latent.isfinite().all():
                raise DataError(
                    f"{where}: expected a finite latent of {name}; the VAE gave NaN or infinity. "
                    "Run the VAE in float32 or bfloat16"
                )


def _write(path: Path, index: LatentIndex, tensors: dict[str, torch.Tensor]) -> None:
    """Write a shard whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"index": index.digest})
    partial.replace(path)
