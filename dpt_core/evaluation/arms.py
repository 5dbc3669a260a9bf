"""Arms: ways of drawing the same prompts from the same seeds."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..adapter import DiscriminativeAdapter
from ..checkpoint import Checkpoint
from ..generation import Sampling, generate
from ..lora import merge_lora
from ..reading import DRAWS, TIMESTEP, alignment_scores


@dataclass(frozen=True)
class Arm:
    """One way of drawing.

    Attributes:
        name: for files, unique in a run.
        title: for people.
        sampling: how.
        lora: with the checkpoint's LoRA.
        candidates: pictures drawn per prompt, of which the best by score is kept; ≥ 1.
    """

    name: str
    title: str
    sampling: Sampling
    lora: bool = False
    candidates: int = 1


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
        tuned: the same with the LoRA merged; only the UNet is a copy.
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
            ValueError: the LoRA does not fit the UNet.
        """
        pipeline, adapter = pipeline.to(device), checkpoint.adapter.to(device)
        if not checkpoint.lora or not lora:
            return cls(pipeline, pipeline, adapter)
        unet = copy.deepcopy(pipeline.unet)
        merge_lora(unet, checkpoint.lora, lora)
        tuned = copy.copy(pipeline)
        tuned.register_modules(unet=unet)
        return cls(pipeline, tuned, adapter)

    def pipeline(self, lora: bool) -> Any:
        """The pipeline with or without the LoRA."""
        return self.tuned if lora else self.plain

    def score(self, pictures: np.ndarray, prompts: Sequence[str], measure: Measure) -> np.ndarray:
        """Alignment scores `[N]` of pictures `[N, H, W, 3]` uint8."""
        return alignment_scores(
            self.pipeline(measure.lora), self.adapter, pictures, prompts,
            measure.timestep, measure.draws, measure.seed,
        ).numpy()  # fmt: skip

    def fingerprint(self) -> str:
        """Tells weights apart: a digest of every tensor that a picture depends on."""
        plain, tuned = self.plain, self.tuned
        return fingerprint(plain.unet, tuned.unet, plain.vae, plain.text_encoder, self.adapter)


class Drawn(NamedTuple):
    """Pictures of one arm.

    Attributes:
        pictures: `[N, H, W, 3]` uint8.
        seeds: what each was drawn from.
        curves: `[S, N]` alignment scores at the corrected steps; S may be 0.
        candidates: `[K, N]` scores of all candidates, or None where there was no choice.
    """

    pictures: np.ndarray
    seeds: list[int]
    curves: np.ndarray
    candidates: np.ndarray | None


def fingerprint(*modules: nn.Module) -> str:
    """A digest of all tensors of modules, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in module.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def standard_arms(corrected: Sampling, candidates: int) -> tuple[Arm, ...]:
    """The arms of the published comparison, the base first.

    Args:
        corrected: sampling with self-correction.
        candidates: of the arm that chooses by score.
    """
    plain = corrected.plain
    return (
        Arm("base", "base", plain),
        Arm("self-correction", "+ self-correction", corrected),
        Arm("lora", "+ LoRA", plain, lora=True),
        Arm("both", "+ both", corrected, lora=True),
        best_of(plain, candidates),
    )


def choose_arms(arms: Sequence[Arm], names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms by name, in the order of the names; all of them where there are no names.

    Raises:
        ValueError: there is no such arm.
    """
    known = {arm.name: arm for arm in arms}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the arms are {', '.join(known)}; got {unknown[0]!r}")
    return tuple(known[name] for name in names or known)


def best_of(plain: Sampling, candidates: int) -> Arm:
    """The base model, drawing more and keeping the best by our score."""
    return Arm("best-of", f"best of {candidates}", plain, candidates=candidates)


def draw(
    models: Models, arm: Arm, prompts: Sequence[str], seeds: Sequence[int], measure: Measure
) -> Drawn:
    """Draw one picture per prompt and seed in an arm's way.

    Candidate k of a prompt is drawn from its seed + k, so the first is the picture of the arm
    without a choice; of equal scores the first candidate wins.

    Raises:
        ValueError: see :func:`~dpt_core.generation.generate`.
    """
    pipeline, runs, scores = models.pipeline(arm.lora), [], []
    for candidate in range(arm.candidates):
        shifted = [seed + candidate for seed in seeds]
        runs.append(generate(pipeline, prompts, shifted, arm.sampling, models.adapter))
        if arm.candidates > 1:
            scores.append(models.score(runs[-1].pictures, prompts, measure))
    if arm.candidates == 1:
        return Drawn(runs[0].pictures, list(seeds), runs[0].scores, None)
    best = np.argmax(scores, axis=0)
    return Drawn(
        np.stack([runs[k].pictures[n] for n, k in enumerate(best)]),
        [seed + int(k) for seed, k in zip(seeds, best, strict=True)],
        np.stack([runs[k].scores[:, n] for n, k in enumerate(best)], axis=1),
        np.stack(scores),
    )
