"""What one self-correcting sampling run knows while it lasts."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ...dpt_core.correction import finite_rows, keep_sampler_latent
from .adapter import LoadedAdapter
from .rows import ConditionalRows
from .scoring import Scorer
from .texts import Targets

logger = logging.getLogger(__name__)


class Run:
    """State of one sampling run.

    Attributes:
        targets: conditional chunks and their texts.
        scorer: scores and gradients.
        mask: the denoise mask `[B, 1, H, W]`, or None.
        corrected: number of corrected calls so far.
        lagged: in lagged mode, by chunk set: how far the variance-preserving latent moves at
            the next call.
    """

    def __init__(self, guider: Any, adapter: LoadedAdapter, sigmas: torch.Tensor, mask: Any):
        model = guider.inner_model
        self.targets = Targets(guider.conds, adapter.config, model)
        self.scorer = Scorer(adapter, model)
        self.model_sampling = model.model_sampling
        self.mask = mask
        self.corrected = 0
        self.lagged: dict[tuple, torch.Tensor] = {}
        self._sigmas = sigmas.tolist()
        self._latest: tuple | None = None
        self._warned = False

    @property
    def steps(self) -> int:
        return len(self._sigmas) - 1

    def step_at(self, sigma: float) -> int:
        """Index of the step that a noise level belongs to."""
        return sum(sigma <= start * (1 + 1e-6) for start in self._sigmas[1:-1])

    def input_scale(self, sigma: torch.Tensor) -> torch.Tensor:
        """a(σ) with which the host scales x before the UNet sees it, `[R, 1, 1, 1]`."""
        ones = torch.ones(len(sigma), 1, 1, 1, device=sigma.device)
        return self.model_sampling.calculate_input(sigma, ones)

    def to_x(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """A move of the variance-preserving latent in the sampler's space, `x = z / a`."""
        return z / self.input_scale(sigma)

    def rebase(
        self, denoised: torch.Tensor, sigma: torch.Tensor, x: torch.Tensor, move: torch.Tensor
    ) -> torch.Tensor:
        """Prediction made at `x + move`, for a sampler that steps from `x`."""
        nothing = torch.zeros_like(x)
        skip_corrected, skip = (
            self.model_sampling.calculate_denoised(sigma, nothing, latent)
            for latent in (x + move, x)
        )
        return keep_sampler_latent(denoised, skip_corrected, skip)

    def known(self, key: tuple, x: torch.Tensor) -> torch.Tensor | None:
        """The latest move, if the same rows are asked for again (as PAG and its like do)."""
        if self._latest and self._latest[0] == key and torch.equal(self._latest[1], x):
            return self._latest[2]
        return None

    def remember(self, key: tuple, x: torch.Tensor, move: torch.Tensor) -> None:
        self._latest = key, x, move

    def warn_once(self, gradient: torch.Tensor) -> None:
        """Say once that some rows stay uncorrected because their gradient is not finite."""
        if not self._warned and not finite_rows(gradient).all():
            self._warned = True
            logger.warning("DPT: gradient not finite, those pictures stay uncorrected at that step")


def mask_rows(mask: torch.Tensor, rows: ConditionalRows) -> torch.Tensor:
    """The denoise mask for each conditional row, cut to the row's area."""
    parts = []
    for image, area in zip(rows.image.tolist(), rows.areas, strict=True):
        part = mask[image % len(mask)]
        for axis in range(len(area) // 2 if area else 0):
            part = part.narrow(axis + 1, area[axis + len(area) // 2], area[axis])
        parts.append(part)
    return torch.stack(parts)
