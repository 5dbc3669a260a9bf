"""Fréchet inception distance (FID) and Inception score, by torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import nn

SPLITS = 10


class InceptionOutputs(NamedTuple):
    """What an Inception network says about `N` pictures.

    Attributes:
        features: `[N, D]` float32, of which FID is made (D = 2048).
        logits: `[N, K]` float32, of which the Inception score is made (K = 1008).
    """

    features: np.ndarray
    logits: np.ndarray


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits; NaN for the latter where there is one split."""

    mean: float
    deviation: float


def load_inception(path: str | Path, device: str = "cpu") -> nn.Module:
    """Load the network that published FIDs rest on, Inception v3 as TensorFlow had it.

    Args:
        path: `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity.
        device: where to compute.

    Returns:
        A module from pictures `[N, 3, H, W]` uint8 of any size, resized to 299 × 299 as there, to
        features `[N, 2048]` and unbiased logits `[N, 1008]`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
        ImportError: torch-fidelity is not installed.
    """
    check_inception(path)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    wanted = ["2048", "logits_unbiased"]
    try:
        torch.load(path, weights_only=True)  # first: torch-fidelity would trust any pickle
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", wanted, str(path))
    except (RuntimeError, UnpicklingError, EOFError, TypeError) as error:
        raise ValueError(f"{path} does not hold torch-fidelity's Inception v3: {error}") from error
    return extractor.to(device)


def check_inception(path: str | Path) -> None:
    """Make sure that FID and Inception score can be computed, without loading anything.

    Raises:
        FileNotFoundError: there is no file at the path.
        ImportError: torchmetrics or torch-fidelity is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"expected the weights of Inception v3 at {path}; there is no such file. Download "
            "weights-inception-2015-12-05-6726825d.pth from torch-fidelity's releases"
        )
    for package in ("torch_fidelity", "torchmetrics"):
        if find_spec(package) is None:
            raise ImportError(
                f"FID and Inception score need {package}: pip install 'dpt-t2i[metrics]'"
            )


@torch.no_grad()
def inception_outputs(extractor: nn.Module, pictures: Sequence[np.ndarray]) -> InceptionOutputs:
    """Features and logits of pictures.

    Args:
        extractor: of :func:`load_inception`, or any module with its inputs and outputs.
        pictures: `N` pictures `[H, W, 3]` uint8; those of one size are read together.
    """
    device = next(extractor.parameters()).device
    together = len({each.shape for each in pictures}) == 1
    groups = [np.stack(pictures)] if together else [each[None] for each in pictures]
    found = []
    for group in groups:
        pixels = rearrange(torch.tensor(group), "n h w c -> n c h w").to(device)
        found.append([each.float().cpu().numpy() for each in extractor(pixels)])
    features, logits = (np.concatenate(each) for each in zip(*found, strict=True))
    return InceptionOutputs(features, logits)


def frechet_distance(real: Iterable[np.ndarray], generated: Iterable[np.ndarray]) -> float:
    """Fréchet distance of two sets of features, each as a normal distribution; lower is better.

    With fewer pictures than features, and with a set's size in general, it is biased: compare
    only distances of equally many pictures.

    Args:
        real, generated: batches `[n, D]` of features, one at a time; summed in float64.

    Returns:
        The distance, ≥ 0 up to rounding.

    Raises:
        ValueError: a set has fewer than two pictures.
        ImportError: torchmetrics is not installed.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = None
    for batches, is_real in ((real, True), (generated, False)):
        number = 0
        for batch in batches:
            if metric is None:
                metric = FrechetInceptionDistance(_given(batch.shape[1]), sync_on_compute=False)
            metric.update(torch.from_numpy(batch).double(), real=is_real)
            number += len(batch)
        if number < 2:
            raise ValueError(f"a Fréchet distance needs two pictures of each set; got {number}")
    return float(metric.compute())


def inception_score(
    logits: Iterable[np.ndarray], splits: int = SPLITS, seed: int = 0
) -> InceptionScore:
    """Inception score: `exp E KL(p(class | picture) ‖ p(class))` over splits; higher is better.

    Args:
        logits: batches `[n, K]`.
        splits: parts that the pictures are divided into; at most one per picture.
        seed: of the shuffle before.

    Raises:
        ValueError: there are no pictures.
        ImportError: torchmetrics is not installed.
    """
    from torchmetrics.image.inception import InceptionScore as Score

    batches = [torch.from_numpy(each) for each in logits]
    number = sum(map(len, batches))
    if not number:
        raise ValueError("an Inception score needs pictures; got none")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # on memory; on the deviation of a single split
        width, splits = batches[0].shape[1], min(splits, number)
        metric = Score(_given(width), splits=splits, sync_on_compute=False)
        for batch in batches:
            metric.update(batch.double())
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return InceptionScore(float(mean), float(deviation))


def _given(width: int) -> nn.Module:
    """In place of a network: what is given are features already."""
    identity = nn.Identity()
    identity.num_features = width
    return identity
