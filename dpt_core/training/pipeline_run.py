"""Training an adapter on a diffusers pipeline: the same run (:mod:`.adapter_run`) as in ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch

from ..backbones import autoencoders
from ..backbones.base import read_features, rows_of
from ..fingerprints import fingerprint
from .adapter_run import AdapterRun, Trained, prepared
from .backbone import Backbone
from .data.rows import CaptionedPictures
from .kept import room
from .latents import EncodedPictures, encode_all
from .observer import Observer
from .recipe import RunSettings

AT_ONCE = 96
"""Rows that are passed together at most."""


class PipelinePasses:
    """Passes of a pipeline's network to a tap (a :class:`~.features.FeatureSource`).

    Args:
        backbone: the pipeline, frozen.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.family, self.text = backbone.model.family, backbone.model.texts[0]
        self.device = backbone.network.device

    def taps(self) -> Mapping[str, int]:
        return self._backbone.model.taps()

    def text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        listed = list(dict.fromkeys(texts))
        vectors = self._backbone.model.text_vectors(listed, self.text).float().to(self.device)
        return vectors[[listed.index(text) for text in texts]]

    @torch.no_grad()
    def read(
        self,
        taps: Sequence[str],
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
    ) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {tap: [] for tap in taps}
        for rows in torch.arange(len(texts)).split(AT_ONCE):
            some = [texts[row] for row in rows]
            listed = list(dict.fromkeys(some))
            inputs = self._backbone.model.conditioning(listed, clean.shape[-2:])
            chosen = torch.tensor([listed.index(each) for each in some])
            own = rows_of(inputs, chosen, len(listed))
            latents, noises, at = (each[rows].to(self.device) for each in (clean, noise, levels))
            call = self._backbone.noised(latents, noises, at, own)
            for tap in taps:
                found[tap].append(read_features(self._backbone.model, tap, call)[0])
        return {tap: torch.cat(parts) for tap, parts in found.items()}


def train_on_pipeline(
    backbone: Backbone,
    data: CaptionedPictures,
    settings: RunSettings,
    folder: Path,
    observer: Observer | None = None,
) -> Trained:
    """Train an adapter on a diffusers pipeline; called again, it goes on.

    Args:
        backbone: the pipeline, frozen; unchanged.
        data: captioned pictures.
        settings: of the run.
        folder: where the run lives.
        observer: looks on.

    Raises:
        ValueError, dpt_core.training.loop.Interrupted: see :meth:`.adapter_run.AdapterRun.finish`.
    """
    observer, data = observer or Observer(), prepared(data, settings)
    folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(pictures: torch.Tensor) -> torch.Tensor:
        return autoencoders.encode(backbone.vae, pictures)

    latents = encode_all(encode, data, folder / "latents", observer)
    encoded = data.with_images(EncodedPictures(data.images, latents))
    about = {"model": fingerprint(backbone.network, first=64), "data": data.digest()}
    memory = room(folder, psutil.virtual_memory().available)
    run = AdapterRun(
        PipelinePasses(backbone), encoded, data.images, folder, settings, about, observer,
        memory,
    )  # fmt: skip
    return run.finish()
