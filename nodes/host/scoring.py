"""Alignment scores of a model call's rows, with or without their gradient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management as management
import torch

from ...dpt_core.backbones.base import TapReached
from ...dpt_core.correction import gradient_of, score_gradient
from ...dpt_core.score import alignment_score
from .adapter import LoadedAdapter
from .gradients import (
    WeightViews,
    attention_override,
    differentiable,
    no_dead_ends,
    not_differentiable,
    recomputed,
    usable,
)
from .rows import ConditionalRows, ModelCall
from .unet import Reader, mutates, tapped

logger = logging.getLogger(__name__)

ApplyModel = Callable[..., torch.Tensor]

GRADIENT_MEMORY = 3.0
"""Memory of a gradient pass to the tap over the host's estimate for a plain pass of its rows."""


class Scorer:
    """Scores rows of model calls during one run.

    Args:
        adapter: the adapter, loaded on the device by the host.
        model: the host's BaseModel, loaded.
    """

    def __init__(self, adapter: LoadedAdapter, model: Any) -> None:
        self._adapter = adapter.patcher.model
        self._config = adapter.config
        self._model = model
        self._views = WeightViews()
        self._most_rows = 1 << 30
        self._recompute = False
        self._checked = False

    def scores(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows
    ) -> torch.Tensor:
        """Alignment scores `[R]` of the conditional rows."""
        scores: list[torch.Tensor] = []
        chosen = call.select(rows.index)

        def read(h: torch.Tensor) -> torch.Tensor:
            scores.append(self._score(h, chosen.sigma, rows.text))
            raise TapReached

        self._run_tapped(apply_model, chosen, read)
        return scores[0]

    def gradients(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `[R]` of the conditional rows at `x` and their gradient ∂s/∂x, float32.

        Rows are split until the pass fits into the device's memory; then blocks are recomputed.

        Raises:
            ValueError: out of memory with a single row, or the model is not differentiable.
        """

        def part(rows: slice) -> tuple[torch.Tensor, ...]:
            with self._differentiable(call, index[rows], text[rows]) as (chosen, texts):

                def score(x: torch.Tensor) -> torch.Tensor:
                    scores: list[torch.Tensor] = []

                    def read(h: torch.Tensor) -> torch.Tensor:
                        scores.append(self._score(h, chosen.sigma, texts))
                        raise TapReached

                    self._run_tapped(apply_model, chosen, read, x)
                    return scores[0]

                return score_gradient(usable(x[rows]), score, self._half)

        index, text = rows.index, rows.text
        return self._in_parts(part, call.x, len(index))

    def predictions(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Whole passes of the conditional rows at `x`, their scores and gradients on the way.

        The graph is kept up to the tap only. Splits rows and raises as :meth:`gradients` does.

        Returns:
            What the model returns `[R, C, h, w]`, scores `[R]`, gradients ∂s/∂x `[R, C, h, w]`.
        """

        def part(rows: slice) -> tuple[torch.Tensor, ...]:
            with self._differentiable(call, index[rows], text[rows]) as (chosen, texts):
                leaf = usable(x[rows]).detach().clone().requires_grad_()
                found: list[tuple[torch.Tensor, torch.Tensor]] = []

                def read(h: torch.Tensor) -> torch.Tensor:
                    score = self._score(h, chosen.sigma, texts)
                    found.append((score.detach(), gradient_of(score, leaf, self._half)))
                    torch.set_grad_enabled(False)  # `differentiable` restores it
                    return h.detach()

                denoised = self._run_tapped(apply_model, chosen, read, leaf)
                return denoised, *found[0]

        index, text = rows.index, rows.text
        return self._in_parts(part, call.x, len(index))

    @property
    def _half(self) -> bool:
        return (self._model.manual_cast_dtype or self._model.get_dtype()) == torch.float16

    @contextmanager
    def _differentiable(
        self, call: ModelCall, index: torch.Tensor, text: torch.Tensor
    ) -> Iterator[tuple[ModelCall, torch.Tensor]]:
        """Some rows of a call and their texts, ready for autograd."""
        with ExitStack() as stack:
            models = self._model.diffusion_model, self._adapter
            stack.enter_context(differentiable(self._views, *models))
            if not self._checked:
                stack.enter_context(no_dead_ends(self._model.diffusion_model))
            if self._recompute:
                stack.enter_context(recomputed(self._model.diffusion_model))
            if mutates(call.options):
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            chosen = call.select(index)
            options = {**chosen.options, "optimized_attention_override": attention_override}
            x, sigma, inputs = usable((chosen.x, chosen.sigma, chosen.inputs))
            yield ModelCall(x, sigma, options, inputs), usable(text)
            self._checked = True

    def _run_tapped(
        self,
        apply_model: ApplyModel,
        call: ModelCall,
        read: Reader,
        x: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Run a call with `read` at the tap; None if `read` ends the pass there."""
        control = call.inputs.get("control")
        unet, tap = self._model.diffusion_model, self._config.tap
        with tapped(unet, tap, call.options, control, read) as (options, control):
            inputs = {**call.inputs, "control": control}
            try:
                return ModelCall(call.x, call.sigma, options, inputs).run(apply_model, x)
            except TapReached:
                return None

    def _score(self, h: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Alignment scores `[R]` of tapped features, in float32."""
        timesteps = self._model.model_sampling.timestep(sigma).float()
        return alignment_score(self._adapter.match(h.float(), timesteps), text.float())

    def _in_parts(
        self, part: Callable[[slice], tuple[torch.Tensor, ...]], x: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, ...]:
        """Work on `count` rows, as many at a time as fit into memory.

        Where a single one does not, its blocks are computed again on the way back.
        """
        parts, start = [], 0
        while start < count:
            fitting = self._rows_that_fit(x)
            self._recompute |= fitting == 0
            end = min(start + max(fitting, 1), count)
            try:
                parts.append(part(slice(start, end)))
                start = end
            except management.OOM_EXCEPTION as error:
                if end - start == 1 and self._recompute:
                    raise ValueError(
                        "DPT ran out of memory on the gradient of a single picture: lower the "
                        "resolution, unload other models, or correct fewer steps with end_percent"
                    ) from error
                self._recompute |= end - start == 1
                self._most_rows = max(1, (end - start) // 2)
                management.soft_empty_cache()
                logger.warning("DPT: out of memory, going on with %d rows", self._most_rows)
            except RuntimeError as error:
                if "inference tensor" in str(error).lower():
                    raise not_differentiable(
                        "some layer hides its weights from autograd"
                    ) from error
                raise
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def _rows_that_fit(self, x: torch.Tensor) -> int:
        row = self._model.memory_required([1, *x.shape[1:]]) * GRADIENT_MEMORY
        free = management.get_free_memory(x.device)
        return min(self._most_rows, int(free // row))
