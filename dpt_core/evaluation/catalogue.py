"""Which metrics a benchmark computes: those whose weights are given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ..fingerprints import fingerprint
from .metrics import blip_scores, clip_scores, load_blip, load_clip, load_inception
from .metrics.inception import check_inception
from .metrics.latents import LatentFeatures
from .metrics.local import check_model
from .passes import Scorer, reference_files
from .tables import Column

ALIGNMENT = Column("score", "alignment score ×100")
JUDGED = (
    Column("holds", "caption holds", share=True),
    Column("malformed", "malformed shapes", share=True),
)
INCEPTION, LATENTS = "inception", "latents"


class Loaded(NamedTuple):
    """A metric of single pictures, and a digest of its weights."""

    scorer: Scorer
    weights: str


@dataclass(frozen=True)
class Metric:
    """A metric of single pictures that needs weights of its own.

    Attributes:
        name: for files.
        columns: what it says about each picture.
        load: from a device to the metric.
    """

    name: str
    columns: tuple[Column, ...]
    load: Callable[[str], Loaded]


@dataclass(frozen=True)
class MetricWeights:
    """Where the metrics' weights are; None leaves a metric out.

    Attributes:
        clip: a local copy of a CLIP model of transformers.
        blip: a local copy of a BLIP model for retrieval.
        inception: torch-fidelity's weights of Inception v3, for FID and Inception score.
        reference: a folder of real pictures, for FID.
    """

    clip: Path | None = None
    blip: Path | None = None
    inception: Path | None = None
    reference: Path | None = None

    def check(self) -> list[str]:
        """Make sure, before anything is drawn, that what is given can be used.

        Returns:
            A line per metric that is left out.

        Raises:
            OSError, ValueError, ImportError: something cannot be used.
        """
        if self.clip:
            check_model(self.clip, "clip")
        if self.blip:
            check_model(self.blip, "blip")
        if self.inception:
            check_inception(self.inception)
        if self.reference:
            reference_files(self.reference)
        lacking = {
            "CLIP score": () if self.clip else ("--clip",),
            "BLIP scores": () if self.blip else ("--blip",),
            "Inception score": () if self.inception else ("--inception",),
            "FID": [f"--{name}" for name in (INCEPTION, "reference") if not getattr(self, name)],
        }
        return [
            f"{metric} skipped: it needs {' and '.join(options)}."
            for metric, options in lacking.items()
            if options
        ]

    def metrics(self) -> list[Metric]:
        """Those of single pictures whose weights are given."""
        found = []
        if self.clip:
            columns = (Column("clip", "CLIP score ×100"),)
            found.append(Metric("clip", columns, lambda device: _clip(self.clip, device)))
        if self.blip:
            columns = (Column("blip_itm", "BLIP-ITM ×100"), Column("blip_itc", "BLIP-ITC ×100"))
            found.append(Metric("blip", columns, lambda device: _blip(self.blip, device)))
        return found


class LoadedExtractor(NamedTuple):
    """A network that sees features, its digest, and one of it and the reference's file names."""

    extractor: nn.Module
    weights: str
    reference: str


def load_extractor(path: Path, files: Sequence[Path], device: str) -> LoadedExtractor:
    """The network of FID and Inception score.

    Args:
        path, device: see :func:`~dpt_core.evaluation.metrics.load_inception`.
        files: the reference's pictures; may be none.
    """
    return _extractor(load_inception(path, device), files)


def latent_features(vae: Any, files: Sequence[Path]) -> LoadedExtractor:
    """An autoencoder in place of that network; see :class:`~.metrics.latents.LatentFeatures`.

    Args:
        vae: of a diffusers pipeline.
        files: the reference's pictures.
    """
    return _extractor(LatentFeatures(vae), [Path(file.name) for file in files])


def _extractor(extractor: nn.Module, files: Sequence[Path]) -> LoadedExtractor:
    weights = fingerprint(extractor)
    names = "\n".join([weights, *(str(file) for file in files)])
    return LoadedExtractor(extractor, weights, hashlib.sha256(names.encode()).hexdigest()[:16])


def _clip(folder: Path, device: str) -> Loaded:
    clip = load_clip(folder, device)

    def score(pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {"clip": clip_scores(clip, pictures, prompts)}

    return Loaded(score, fingerprint(clip.model))


def _blip(folder: Path, device: str) -> Loaded:
    blip = load_blip(folder, device)

    def score(pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> Mapping[str, np.ndarray]:
        found = blip_scores(blip, pictures, prompts)
        return {"blip_itm": found.matching, "blip_itc": found.contrastive}

    return Loaded(score, fingerprint(blip.model))
