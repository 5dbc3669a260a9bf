"""The noise of flow-matching models: a straight line from picture to noise."""

from __future__ import annotations

from typing import Any

import torch

SCALE = 1000.0
"""Timesteps of flow models: a thousand times the share of noise."""

ROUNDED = 0.01
"""How far, relatively, a timestep in half precision may be from the scheduler's own."""


class FlowNoise:
    """`x = (1 − t)·x₀ + t·ε`; sigma is the scheduler's timestep, `1000 t`.

    Args:
        scheduler: of diffusers, for flow models.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def weights(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """α and s of timesteps `[R]`.

        Raises:
            ValueError: the scheduler is of another kind of noise.
        """
        scheduler = self._scheduler
        config = getattr(scheduler, "config", {})
        kinds = config.get("use_flow_sigmas"), config.get("prediction_type") == "flow_prediction"
        if not (any(kinds) or "FlowMatch" in type(scheduler).__name__):
            raise ValueError(
                "this model denoises along straight lines: use a scheduler for flow matching "
                "(FlowMatchEulerDiscreteScheduler, or another with use_flow_sigmas); got "
                f"{type(scheduler).__name__}"
            )
        share = sigma.double() / SCALE
        return 1 - share, share

    def level(self, sigma: torch.Tensor) -> torch.Tensor:
        """The timestep, float32."""
        return sigma.float()

    def sigma(self, level: float) -> float:
        """The timestep."""
        return level

    def reached(self, percent: float) -> float:
        """Timestep when a share of the scheduler's steps is over.

        Between two steps it lies as far from one to the next. That is the schedule's own curve,
        whatever shift it has.
        """
        starts = [*dict.fromkeys(self._scheduler.timesteps.tolist()), 0.0]
        place = percent * (len(starts) - 1)
        before = min(int(place), len(starts) - 2)
        return starts[before] + (place - before) * (starts[before + 1] - starts[before])

    def told(self, timestep: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Timesteps `[R]` as the scheduler has them, float32.

        Pipelines round them to the network's precision, which may be more than a step.

        Args:
            timestep: `[R]` what the network is called with.
            scale: of it: 1000 where it goes to 1.
        """
        exact = timestep.dtype not in (torch.float16, torch.bfloat16)
        timestep, scheduler = timestep.float() * scale, self._scheduler
        index = getattr(scheduler, "step_index", None)
        if index is None:
            index = getattr(scheduler, "begin_index", None) or 0
        if index < len(scheduler.timesteps):
            own = float(scheduler.timesteps[index])
            if abs(own - float(timestep[0])) <= (1e-4 if exact else ROUNDED) * own:
                return torch.full_like(timestep, own)
        return timestep
