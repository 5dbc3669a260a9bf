"""Training an adapter inside the host; the training itself is dpt_core's."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management as management
import folder_paths
import torch
from comfy.utils import ProgressBar
from einops import rearrange

from ...dpt_core.fingerprints import fingerprint
from ...dpt_core.training.adapter_run import AdapterRun, Trained, prepared
from ...dpt_core.training.data.rows import CaptionedPictures
from ...dpt_core.training.kept import room
from ...dpt_core.training.latents import EncodedPictures, encode_all
from ...dpt_core.training.loop import Interrupted
from ...dpt_core.training.observer import Observer
from ...dpt_core.training.recipe import RunSettings
from .backbones.registry import backbone_of
from .encode import encode_prompt
from .names import inside
from .passes import HostPasses, with_passes
from .progress import show
from .read_once import encode_pictures
from .text_store import Encode, HostTexts

RUNS = "dpt"
"""Folder of runs, in the host's output folder."""

PAUSE = 0.5
"""Seconds between two lines on the node."""


class OnNode(Observer):
    """Shows a run on its node, and stops it where the user cancels.

    Args:
        node_id: of the node.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id, self._bar, self._shown = node_id, ProgressBar(1), 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        self._bar.update_absolute(done, total)
        now = time.monotonic()
        if done == total or now - self._shown > PAUSE:
            self._shown = now
            show(self._node_id, what)

    def stopped(self) -> bool:
        return management.processing_interrupted()

    def drawn(self, picture: Any) -> None:
        bar = self._bar
        bar.update_absolute(bar.current, bar.total, ("JPEG", picture, max(picture.size)))


def train_adapter(
    model: Any,
    clip: Any,
    vae: Any,
    data: CaptionedPictures,
    settings: RunSettings,
    run_name: str,
    node_id: str,
) -> Trained:
    """Train an adapter on a model; a run of that name goes on.

    Args:
        model, clip, vae: the host's; unchanged.
        data: captioned pictures.
        settings: of the run.
        run_name: its folder in `output/dpt`.
        node_id: of the node that shows it.

    Raises:
        ValueError: something is not wired or does not fit; see also
            :meth:`dpt_core.training.adapter_run.AdapterRun.finish`.
    """
    if model is None:
        raise ValueError("model is missing: wire the MODEL that the adapter is to read")
    encode = partial(encode_prompt, clip)
    return train_on(model, encode, vae, data, settings, run_folder(run_name), OnNode(node_id))


def train_on(
    model: Any,
    encode: Encode,
    vae: Any,
    data: CaptionedPictures,
    settings: RunSettings,
    folder: Path,
    observer: Observer,
) -> Trained:
    """As :func:`train_adapter`, with any encoder of texts, into any folder."""
    trained: list[Trained] = []
    data = prepared(data, settings)
    try:
        with torch.inference_mode(False):
            latents = encode_all(partial(_encoded, vae), data, folder / "latents", observer)
        texts = HostTexts(encode, backbone_of(model.model), folder / "texts")
        encode_texts(texts, data.texts(), observer)
        encoded = data.with_images(EncodedPictures(data.images, latents))
        about = {"model": model_digest(model), "data": data.digest()}

        def work(passes: HostPasses) -> None:
            memory = room(folder, management.get_free_memory(torch.device("cpu")))
            run = AdapterRun(
                passes, encoded, data.images, folder, settings, about, observer, memory
            )
            trained.append(run.finish())
            shutil.rmtree(folder / "texts", ignore_errors=True)

        with_passes(model, texts, next(iter(latents.values())).tensor[None].float(), work)
    except Interrupted:
        management.throw_exception_if_processing_interrupted()
        raise
    return trained[0]


def encode_texts(texts: HostTexts, wanted: Sequence[str], observer: Observer) -> None:
    """Encode texts before the model is loaded: the text encoder needs its place."""
    for done, text in enumerate(wanted, start=1):
        if observer.stopped():
            raise Interrupted("stopped while encoding texts")
        texts.add(text)
        observer.progress(f"encoding texts: {done} of {len(wanted)}", done, len(wanted))


def _encoded(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encode_pictures(vae, rearrange(pictures, "b c h w -> b h w c") / 2 + 0.5)


def model_digest(model: Any) -> str:
    """What tells a model from others, with what is patched onto it."""
    network = fingerprint(model.model.diffusion_model, first=64)
    patched = sorted(map(str, model.patches))
    return hashlib.sha256(f"{network}{patched}".encode()).hexdigest()[:16]


def losses_of(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Losses as the host's LOSS_MAP."""
    return {"loss": [row.get("total", sum(row.values()) - row["step"]) for row in rows]}


def run_folder(run_name: str) -> Path:
    """Where a run lives.

    Raises:
        ValueError: the name is empty, or leads out of the folder of runs.
    """
    return inside(Path(folder_paths.get_output_directory(), RUNS), run_name, "run_name")
