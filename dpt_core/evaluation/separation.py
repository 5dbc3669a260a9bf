"""How well scores tell right pictures from wrong ones: the adapter's beside the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..fingerprints import fingerprint
from ..reading import alignment_scores
from .catalogue import Loaded, Metric
from .defaults import METRIC_TIMESTEPS
from .models import Measure, Models
from .zero_shot import denoising_errors

READERS = {
    "adapter": "adapter",
    "error": "without adapter: denoising error",
    "gain": "without adapter: denoising error less that without prompt",
}
"""Columns of rows, each with a value per timestep, and their titles. Larger says more right."""

ZERO_SHOT = "error"
"""What the adapter's gain is told over: the better of the two without one."""


def readers(
    models: Models, measure: Measure, timesteps: Sequence[int] = METRIC_TIMESTEPS
) -> Metric:
    """All scores of pictures at noise levels, as a metric of rows.

    Args:
        models: the adapter, and the models that it and the zero-shot baseline read.
        measure: its timestep is not used.
        timesteps: noise levels in [0, 999].
    """

    def score(pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> Mapping[str, np.ndarray]:
        batch, pipeline = np.stack(pictures), models.pipeline(measure.lora)
        adapter = [
            alignment_scores(
                pipeline, models.adapter, batch, prompts, level, measure.draws, measure.seed
            ).numpy()
            for level in timesteps
        ]
        own, empty = (
            denoising_errors(models.plain, batch, texts, timesteps, measure.draws, measure.seed)
            for texts in (prompts, [""] * len(prompts))
        )
        return {"adapter": np.stack(adapter, 1), "error": -own.T, "gain": (empty - own).T}

    name = f"readers-{'-'.join(map(str, timesteps))}"
    weights = fingerprint(models.adapter)  # those of the models are the folder's
    return Metric(name, (), lambda device: Loaded(score, weights))
