"""Search inside a diffusers pipeline: the candidates are drawn together, the dropped ones cost
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from .adapter import DiscriminativeAdapter
from .backbones.base import BackboneCall, replaced, rows_of
from .backbones.registry import backbone_of
from .correction import Correction
from .corrector import Corrector, step_at
from .diffusers import branches, conditional_rows, score_function, self_correcting, starts_of
from .reading import noise_draws, renoised
from .search import READ_AT, Pool, Search


class Searching:
    """Candidates drawn together by a diffusers pipeline; the dropped ones cost nothing.

    The pipeline goes on with all rows, and its scheduler with all it remembers; the network sees
    only those that are alive. So every row is what it would be if it were drawn alone, with any
    scheduler. Rows go by picture, then candidate.

    Args:
        pipeline: a diffusers pipeline.
        adapter: the adapter, on its device.
        text: `[B, D]` text vectors of the prompts.
        search: how.

    Attributes:
        pool: the candidates of the run.
    """

    def __init__(
        self, pipeline: Any, adapter: DiscriminativeAdapter, text: torch.Tensor, search: Search
    ) -> None:
        self._pipeline, self._adapter, self._search = pipeline, adapter, search
        self._backbone = backbone_of(pipeline)
        self._text = text.repeat_interleave(search.candidates, dim=0)
        self._starts: list[float] = []
        self.pool: Pool

    @contextmanager
    def run(self, correction: Correction | None) -> Iterator[None]:
        """A context in which the pipeline is called once, with :meth:`last_step` as callback.

        Args:
            correction: how every candidate corrects itself, or None.

        Raises:
            ValueError: the adapter does not fit the model.
        """
        module = self._backbone.module
        self._plainly = module.forward
        correction = correction or Correction(strength=0.0)
        with self_correcting(self._pipeline, self._adapter, self._alive_text, correction) as run:
            inner, self._starts = module.forward, []

            def forward(*args: Any, **kwargs: Any) -> Any:
                return self._forward(inner, run, self._backbone.call(args, kwargs), branch())

            scheduler = self._pipeline.scheduler
            step_plainly = scheduler.step

            @wraps(step_plainly)  # pipelines ask for its signature
            def step(guided: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if self.pool.is_read(self._step):
                    self._reread(guided)
                return step_plainly(guided, *args, **kwargs)

            with (
                branches(module) as branch,
                replaced(module, "forward", forward),
                replaced(scheduler, "step", step),
            ):
                yield

    def last_step(self, pipeline: Any, index: int, timestep: Any, values: dict) -> dict:
        """For `callback_on_step_end`: only the kept latents are decoded, the best first."""
        if index < pipeline.num_timesteps - 1:
            return {}
        each = torch.arange(len(self.pool.alive))[:, None] * self._search.candidates
        return {"latents": values["latents"][(each + self.pool.kept()).flatten()]}

    def _forward(self, inner: Any, run: Corrector, call: BackboneCall, branch: str | None) -> Any:
        sigma = float(call.sigmas()[0])
        if not self._starts:
            self._starts = starts_of(self._pipeline.scheduler)
            pictures = len(self._text) // self._search.candidates
            self.pool = Pool(self._search, pictures, len(self._starts))
        self._step = step_at(sigma, self._starts)
        self.pool.come_to(self._step)
        rows = self._rows
        groups = range(0, len(call.x), len(self._text))  # with guidance, of both kinds
        index = torch.cat([rows + first for first in groups]).to(call.x.device)
        part = call.select(index) if len(index) < len(call.x) else call
        own = part.select(conditional_rows(self._backbone, part, branch))
        if len(own.x):
            self._conditional = own
        noted = len(run.scores)
        predicted = self._backbone.run(inner, part)
        for scores in run.scores[noted:]:
            self.pool.note(self._step, scores, *self._which)
        if part is not call:
            whole = predicted.new_zeros(len(call.x), *predicted.shape[1:])
            whole[index] = predicted
            predicted = whole
        return self._backbone.result(call, predicted)

    @torch.no_grad()
    def _reread(self, guided: torch.Tensor) -> None:
        """Note the scores of what the rows will become, as the guided predictions say now."""
        call, model = self._conditional, self._backbone
        guided = guided[self._rows.to(guided.device)].to(call.x)
        clean = model.clean(call.sigmas(), call.x, guided)
        noise = noise_draws(clean, 1, 0).expand_as(clean)  # the same for all: they compare
        again = renoised(model, call, clean, noise, READ_AT)
        score = score_function(model, self._adapter, again, self._alive_text(), self._plainly)
        self.pool.note(self._step, score(again.x), *self._which, reread=True)

    @property
    def _which(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture and candidate of each row that is alive."""
        return self._rows // self._search.candidates, self._rows % self._search.candidates

    @property
    def _rows(self) -> torch.Tensor:
        """The rows that are alive, of one half of a call."""
        return self.pool.alive.flatten().nonzero()[:, 0]

    def _alive_text(self) -> torch.Tensor:
        return rows_of(self._text, self._rows, len(self._text))
