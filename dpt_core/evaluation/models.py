"""What is evaluated: a pipeline with and without the LoRA, and the adapter that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..adapter import DiscriminativeAdapter
from ..backbones.registry import modules_of
from ..checkpoint import Checkpoint
from ..fingerprints import fingerprint
from ..generation import with_lora
from ..reading import DRAWS, TIMESTEP, alignment_scores
from .zero_shot import denoising_errors


@dataclass(frozen=True)
class Measure:
    """How finished pictures are scored; see :func:`~dpt_core.reading.alignment_scores`.

    Attributes:
        timestep, draws, seed: as there.
        lora: the adapter reads the model with its LoRA, with which it was tuned. All arms are
            measured alike.
    """

    timestep: int = TIMESTEP
    draws: int = DRAWS
    seed: int = 0
    lora: bool = True


@dataclass(frozen=True)
class Models:
    """A pipeline with and without the LoRA, and the adapter.

    Attributes:
        plain: a diffusers pipeline.
        tuned: the same with the LoRA merged; only the network is a copy.
        adapter: the adapter, on the same device.
    """

    plain: Any
    tuned: Any
    adapter: DiscriminativeAdapter

    @classmethod
    def of(
        cls, pipeline: Any, checkpoint: Checkpoint, device: str = "cpu", lora: float = 1.0
    ) -> Models:
        """Put a checkpoint on a pipeline.

        Args:
            pipeline: a diffusers pipeline; it is moved to the device.
            checkpoint: adapter and LoRA; without a LoRA `tuned` is `plain`.
            device: where to compute.
            lora: strength of the LoRA.

        Raises:
            ValueError: the LoRA does not fit the network.
        """
        pipeline, adapter = pipeline.to(device), checkpoint.adapter.to(device)
        if not checkpoint.lora or not lora:
            return cls(pipeline, pipeline, adapter)
        return cls(pipeline, with_lora(pipeline, checkpoint.lora, lora), adapter)

    @property
    def has_lora(self) -> bool:
        """Whether the model with the LoRA is another one."""
        return self.tuned is not self.plain

    def pipeline(self, lora: bool) -> Any:
        """The pipeline with or without the LoRA."""
        return self.tuned if lora else self.plain

    def score(self, pictures: np.ndarray, prompts: Sequence[str], measure: Measure) -> np.ndarray:
        """Alignment scores `[N]` of pictures `[N, H, W, 3]` uint8."""
        return alignment_scores(
            self.pipeline(measure.lora), self.adapter, pictures, prompts,
            measure.timestep, measure.draws, measure.seed,
        ).numpy()  # fmt: skip

    def score_without_adapter(
        self, pictures: np.ndarray, prompts: Sequence[str], measure: Measure
    ) -> np.ndarray:
        """How well the plain model itself denoises pictures, given their prompts: `[N]`, larger is
        better; see :func:`~dpt_core.evaluation.zero_shot.denoising_errors`."""
        return -denoising_errors(
            self.plain, pictures, prompts, (measure.timestep,), measure.draws, measure.seed
        )[0]

    def fingerprint(self) -> str:
        """Tells weights apart: a digest of every tensor that a picture or its score depends on."""
        parts = {
            f"{side}.{name}": part
            for side, pipeline in (("plain", self.plain), ("tuned", self.tuned))
            for name, part in sorted(modules_of(pipeline).items())
        }
        shared = {id(part): name for name, part in reversed(parts.items())}  # each one once
        return fingerprint(*(parts[name] for name in sorted(shared.values())), self.adapter)
