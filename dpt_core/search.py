"""Search: draw several candidates of a picture, drop the worse ones early, finish the best.

Early on a model's clean prediction already tells how well the picture will agree with the text. It
is noised again to a level at which the adapter reads well, which costs a third of a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from .settings import check_settings, setting

READ_AT = 400
"""Noise level at which a candidate's clean prediction is read."""


@dataclass(frozen=True)
class Search:
    """How a run searches. Node inputs, command options and documents follow from it.

    Checked when it is made.

    Raises:
        ValueError: a value is out of range or not a number, or more are kept than are drawn.
    """

    candidates: int = setting(
        4,
        "How many candidates of each picture begin, from the seed, the seed + 1 and so on. The "
        "worse ones are dropped early.",
        minimum=1, maximum=64,
    )  # fmt: skip
    decide_after: float = setting(
        0.3,
        "Share of the steps after which only those to keep are left. Later decides better and "
        "costs more.",
        minimum=0.0, maximum=1.0, step=0.01,
    )  # fmt: skip
    keep: int = setting(
        1, "How many of the candidates are finished, the best first.", minimum=1, maximum=64
    )
    stages: int = setting(
        1,
        "In how many equal parts of that time candidates are dropped: 3 takes 8 to 4, to 2, to 1.",
        minimum=1, maximum=16,
    )  # fmt: skip
    minimum: float = setting(
        -1.0,
        "With more than one try: the score from which a finished picture is good enough. Scores "
        "lie between -1 and 1.",
        minimum=-1.0, maximum=1.0, step=0.01,
    )  # fmt: skip
    tries: int = setting(
        1,
        "How often a picture is drawn at most, from new candidates each time, until its score "
        "reaches the minimum.",
        minimum=1, maximum=100,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        if self.keep > self.candidates:
            raise ValueError(
                f"keep ({self.keep}) must not exceed candidates ({self.candidates}): draw more or "
                "keep fewer"
            )

    def plan(self, steps: int) -> dict[int, int]:
        """After how many steps how many candidates go on; the last entry is what is kept.

        Args:
            steps: of the sampler, ≥ 1.
        """
        last = max(1, math.floor(self.decide_after * steps + 0.5))
        plan: dict[int, int] = {}
        for stage in range(1, self.stages + 1):
            share = stage / self.stages
            left = self.candidates * (self.keep / self.candidates) ** share
            plan[max(1, math.floor(last * share + 0.5))] = max(self.keep, round(left))
        return plan


class Pool:
    """The candidates of some pictures: their scores, and which are still drawn.

    Args:
        search: how many, and when they are dropped.
        pictures: how many.
        steps: of the sampler.

    Attributes:
        alive: `[B, C]` bool, candidates that are still drawn.
        dropped: `[B, C]` steps that a candidate had taken when it was dropped, 0 while it is alive.
    """

    def __init__(self, search: Search, pictures: int, steps: int) -> None:
        self._plan, self._steps, self._keep = search.plan(steps), steps, search.keep
        self.alive = torch.ones(pictures, search.candidates, dtype=torch.bool)
        self.dropped = torch.zeros(pictures, search.candidates, dtype=torch.int64)
        self._along: dict[int, torch.Tensor] = {}
        self._reread: dict[int, torch.Tensor] = {}

    @property
    def turns(self) -> list[int]:
        """Steps before which candidates are dropped, and the end."""
        return sorted({*(step for step in self._plan if step < self._steps), self._steps})

    def is_read(self, step: int) -> bool:
        """Whether a step's scores count: the last one before candidates are dropped, or of all."""
        return step + 1 in self.turns

    def note(
        self,
        step: int,
        scores: torch.Tensor,
        picture: Any,
        candidate: Any,
        *,
        reread: bool = False,
    ) -> None:
        """Keep scores of a step; several of the same candidate count as their mean.

        Args:
            step: from 0.
            scores: `[n]`.
            picture, candidate: whose, `[n]` each or a number.
            reread: read on the clean prediction, at :data:`READ_AT`: they decide, where there are
                any. The others were read on the noisy latent along the way.
        """
        kept = self._reread if reread else self._along
        sums = kept.setdefault(step, torch.zeros(2, *self.alive.shape))
        scores = scores.detach().float().cpu()
        sums[0][picture, candidate] += scores
        sums[1][picture, candidate] += 1

    def come_to(self, step: int) -> None:
        """Drop what is due before a step.

        Raises:
            ValueError: nothing has been read to choose by.
        """
        for due, left in self._plan.items():
            count = int(self.alive.sum(1).max())
            if due > step or count <= left:
                continue
            if not (self._along or self._reread):
                raise ValueError(
                    "no score was read before candidates had to be dropped: the positive "
                    "conditioning is not active in the first steps, or another node skips them"
                )
            falling = self._ranking()[:, left:count]
            self.alive.scatter_(1, falling, False)
            self.dropped.scatter_(1, falling, min(due, self._steps))

    def kept(self) -> torch.Tensor:
        """The candidates that are left, `[B, K]`, the best of each picture first."""
        self.come_to(self._steps)
        return self._ranking()[:, : self._keep]

    @property
    def scores(self) -> torch.Tensor:
        """What candidates are compared by, `[B, C]`: the last score that was read of each, on its
        clean prediction where that was read; NaN where nothing was."""
        last = torch.full(self.alive.shape, math.nan)
        for kept in (self._along, self._reread):
            for read in _means(kept).values():
                last = torch.where(read.isnan(), last, read)
        return last

    @property
    def curves(self) -> dict[int, torch.Tensor]:
        """Step → scores `[B, C]` along the way, NaN where none was read; where no step read any,
        those that were read again."""
        return _means(self._along or self._reread)

    @property
    def decisions(self) -> dict[int, torch.Tensor]:
        """Step → scores `[B, C]` that candidates were compared by, NaN where none was read."""
        return _means(self._reread)

    def _ranking(self) -> torch.Tensor:
        """Candidates `[B, C]`, the best first; of equals the earlier one; the dropped last."""
        worth = self.scores.nan_to_num(nan=-2.0).masked_fill(~self.alive, -math.inf)
        return worth.argsort(dim=1, descending=True, stable=True)


def _means(kept: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    return {step: sums[0] / sums[1] for step, sums in sorted(kept.items())}
