"""Training runs of seconds in the host: random pictures, texts and models of every family."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
from dpt_pack.dpt_core.training import adapter_run
from dpt_pack.dpt_core.training.adapter_run import AdapterRun, Trained
from dpt_pack.dpt_core.training.data.captioned import from_lists
from dpt_pack.dpt_core.training.data.images import Picture
from dpt_pack.dpt_core.training.data.rows import CaptionedPictures
from dpt_pack.dpt_core.training.latents import EncodedPictures
from dpt_pack.dpt_core.training.observer import Observer
from dpt_pack.dpt_core.training.recipe import RunSettings
from dpt_pack.nodes.host.backbones.registry import backbone_of
from dpt_pack.nodes.host.passes import with_passes
from dpt_pack.nodes.host.text_store import HostTexts
from tiny_models import tiny_model, tiny_text
from tiny_transformers import shape_for, text_for, tiny_transformer

UNET = "sd15"
SETTINGS = RunSettings(steps=24, batch_size=3, examples=6, save_every=8)


def few(monkeypatch) -> None:
    """Few examples to tell by, to try taps on and to whiten by."""
    for name, count in (("HELD_OUT", 4), ("TRIED", 8), ("WHITENED", 6), ("SHOWN", 2)):
        monkeypatch.setattr(adapter_run, name, count)


def toy_model(family: str):
    return tiny_model(family) if family == UNET else tiny_transformer(family)


def encode_for(family: str):
    """Random conditionings by text, of two lengths on transformers."""

    def encode(text: str) -> list:
        seed = zlib.crc32(text.encode())
        if family == UNET:
            return tiny_text(seed)
        return text_for(family, seed, tokens=9 + 3 * (seed % 2))

    return encode


def toy_data(count: int = 9, boxes: bool = True) -> CaptionedPictures:
    """Random pictures with captions, hard negatives and a box each."""
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.rand(20, 24, 3, generator=generator) for _ in range(count)]
    captions = [f"picture {index} of {count}" for index in range(count)]
    found = [[{"x": 2, "y": 3, "width": 8, "height": 6 + n % 3, "label": f"thing {n % 2}"}]
             for n in range(count)]  # fmt: skip
    data = from_lists(pictures, captions, found if boxes else None, 16)
    rows = (row._replace(negative_captions=(f"no {row.caption}",)) for row in data.matching)
    return CaptionedPictures(tuple(rows), data.grounding, data.images)


def latents_for(family: str, data: CaptionedPictures) -> dict[str, Picture]:
    shape = (1, 4, 16, 16) if family == UNET else shape_for(family, 1, (8, 8))
    generator = torch.Generator().manual_seed(2)
    return {
        name: Picture(torch.randn(shape[1:], generator=generator), 24, 20) for name in data.names()
    }


def toy_run(
    family: str,
    folder: Path,
    model=None,
    settings: RunSettings = SETTINGS,
    data: CaptionedPictures | None = None,
    observer: Observer | None = None,
) -> Trained:
    """Train an adapter on a tiny random model."""
    found: list[Trained] = []
    with torch.inference_mode():
        model, data = model or toy_model(family), data or toy_data()
    with torch.inference_mode(False):
        latents = latents_for(family, data)
    encoded = data.with_images(EncodedPictures(data.images, latents))

    def work(passes) -> None:
        run = AdapterRun(passes, encoded, data.images, folder, settings, {}, observer or Observer())
        found.append(run.finish())

    texts = HostTexts(encode_for(family), backbone_of(model.model))
    with_passes(model, texts, next(iter(latents.values())).tensor[None], work)
    return found[0]


class StopAt(Observer):
    """Cancels when something is said."""

    def __init__(self, words: str) -> None:
        self._words, self._said = words, ""

    def progress(self, what: str, done: int, total: int) -> None:
        self._said = what

    def stopped(self) -> bool:
        return self._said.startswith(self._words)
