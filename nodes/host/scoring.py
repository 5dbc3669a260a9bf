"""Alignment scores of a model call's rows, with or without their gradient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management as management
import torch
from torch import nn

from ...dpt_core.backbones.base import Reader, TapReached
from ...dpt_core.correction import gradient_of, score_gradient
from ...dpt_core.score import alignment_score
from .adapter import LoadedAdapter
from .backbones.registry import backbone_of
from .calls import ModelCall
from .gradients import (
    WeightViews,
    attention_override,
    differentiable,
    mutation_allowed,
    no_dead_ends,
    not_differentiable,
    recomputed,
    usable,
)
from .noise import HostNoise
from .rows import ConditionalRows

logger = logging.getLogger(__name__)

ApplyModel = Callable[..., torch.Tensor]


class Scorer:
    """Scores rows of model calls during one run.

    Args:
        adapter: the adapter, loaded on the device by the host.
        model: the host's BaseModel, loaded.
        guests: further modules of other nodes that take part in a pass (GLIGEN).
    """

    def __init__(
        self, adapter: LoadedAdapter, model: Any, guests: Sequence[nn.Module] = ()
    ) -> None:
        self._adapter = adapter.patcher.model
        self._config = adapter.config
        self._model = model
        self._guests = guests
        self.backbone = backbone_of(model)
        self.noise = HostNoise(model.model_sampling)
        self._views = WeightViews()
        self._most_rows = 1 << 30
        self._recompute = False
        self._checked = False

    def scores(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows
    ) -> torch.Tensor | None:
        """Alignment scores `[R]` of the conditional rows; None if the tap is not reached."""
        scores: list[torch.Tensor] = []
        chosen = call.select(rows.index)

        def read(h: torch.Tensor) -> torch.Tensor:
            scores.append(self._score(h, chosen.sigma, rows.text))
            raise TapReached

        self.run_tapped(apply_model, chosen, read)
        return scores[0] if scores else None

    def read_along(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A call's result, which stays as it is, and the scores `[R]` that were read on the way.

        None in their place where the pass never came to the tap.
        """
        scores: list[torch.Tensor] = []

        def read(h: torch.Tensor) -> torch.Tensor:
            scores.append(self._score(h[rows.index], call.sigma[rows.index], rows.text))
            return h

        return self.run_tapped(apply_model, call, read), scores[0] if scores else None

    def gradients(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `[R]` of the conditional rows at `x` and their gradient ∂s/∂x, float32.

        Rows are split until the pass fits into the device's memory; then blocks are recomputed.

        Raises:
            ValueError: out of memory with a single row, or the model is not differentiable.
        """
        call = call.uncached()

        def part(chosen: slice | None) -> tuple[torch.Tensor, ...]:
            # Patches that draw random numbers (HyperTile) must draw the same in the real pass.
            devices = [call.x.device] if call.x.device.type != "cpu" else []
            with (
                torch.random.fork_rng(devices, device_type=call.x.device.type),
                self._differentiable(call, rows, chosen) as (passed, text, place),
            ):

                def score(leaf: torch.Tensor) -> torch.Tensor:
                    scores: list[torch.Tensor] = []

                    def read(h: torch.Tensor) -> torch.Tensor:
                        scores.append(self._score(h[place], passed.sigma[place], text))
                        raise TapReached

                    self.run_tapped(apply_model, passed, read, _with_rows(passed.x, place, leaf))
                    if not scores:
                        raise tap_not_reached(self._config.tap, call)
                    return scores[0]

                return score_gradient(usable(x[chosen or slice(None)]), score, self._half)

        return self._in_parts(part, call, len(rows.index))

    def predictions(
        self, apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """A call's result with the conditional rows at `x`; scores and gradients on the way.

        The graph is kept up to the tap only. Splits rows and raises as :meth:`gradients` does.

        Returns:
            What the model returns for all rows `[N, C, h, w]`, scores `[R]`, gradients ∂s/∂x
            `[R, C, h, w]`; no scores where the pass never came to the tap (another node skipped
            it).
        """
        if call.uncached() is not call:  # a cache must see the passes that it sees without us
            scores, gradient = self.gradients(apply_model, call, rows, x)
            moved = _with_rows(call.x, rows.index, x.to(call.x))
            return call.run(apply_model, moved).clone(), scores, gradient

        def part(chosen: slice | None) -> tuple[torch.Tensor | None, ...]:
            with self._differentiable(call, rows, chosen) as (passed, text, place):
                leaf = usable(x[chosen or slice(None)]).detach().clone().requires_grad_()
                found: list[tuple[torch.Tensor, torch.Tensor]] = []

                def read(h: torch.Tensor) -> torch.Tensor:
                    score = self._score(h[place], passed.sigma[place], text)
                    found.append((score.detach(), gradient_of(score, leaf, self._half)))
                    torch.set_grad_enabled(False)  # `differentiable` restores it
                    return h.detach()

                moved = _with_rows(passed.x, place, leaf)
                denoised = self.run_tapped(apply_model, passed, read, moved)
                return denoised.detach(), *(found[0] if found else (None, None))

        denoised, scores, gradient = self._in_parts(part, call, len(rows.index))
        if not _together(call):
            denoised = _with_others(apply_model, call, rows, denoised)
        return denoised, scores, gradient

    def run_tapped(
        self,
        apply_model: ApplyModel,
        call: ModelCall,
        read: Reader,
        x: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Run a call with `read` at the tap; None if `read` ends the pass there."""
        with self.backbone.tapped(self._config.tap, call, read) as tapped:
            try:
                return tapped.run(apply_model, x)
            except TapReached:
                return None

    @property
    def _half(self) -> bool:
        return (self._model.manual_cast_dtype or self._model.get_dtype()) == torch.float16

    @contextmanager
    def _differentiable(
        self, call: ModelCall, rows: ConditionalRows, chosen: slice | None
    ) -> Iterator[tuple[ModelCall, torch.Tensor, torch.Tensor]]:
        """A call ready for autograd, its texts, and where in it the conditional rows are.

        Args:
            call, rows: as everywhere.
            chosen: which of the conditional rows pass alone, or None for the whole call.
        """
        with ExitStack() as stack:
            models = self._model.diffusion_model, self._adapter, *self._guests
            stack.enter_context(differentiable(self._views, *models))
            if not self._checked:
                stack.enter_context(no_dead_ends(self._model.diffusion_model))
            if self._recompute:
                stack.enter_context(recomputed(self.backbone.blocks(self._config.tap)))
            if _patched(call):
                stack.enter_context(mutation_allowed())
            if chosen is None:
                passed, place, text = call, rows.index, rows.text
            else:
                index = rows.index[chosen]
                passed, text = call.select(index), rows.text[chosen]
                place = torch.arange(len(index), device=index.device)
            passed = passed.with_options(optimized_attention_override=attention_override)
            x, sigma, inputs = usable((passed.x, passed.sigma, passed.inputs))
            yield ModelCall(x, sigma, passed.options, inputs), usable(text), usable(place)
            self._checked = True

    def _score(self, h: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Alignment scores `[R]` of tapped features, in float32."""
        queries = self._adapter.match(h.float(), self.noise.level(sigma))
        return alignment_score(queries, self._adapter.compared(text))

    def _in_parts(
        self,
        part: Callable[[slice | None], tuple[torch.Tensor | None, ...]],
        call: ModelCall,
        count: int,
    ) -> tuple[torch.Tensor | None, ...]:
        """Work on `count` rows, as many at a time as fit into memory.

        Where a single one does not, or the call has to pass whole, its blocks are computed again
        on the way back.
        """
        parts, start, whole = [], 0, _together(call)
        while start < count:
            fitting = self._rows_that_fit(call)
            self._recompute |= fitting < (len(call.x) if whole else 1)
            end = count if whole else min(start + max(fitting, 1), count)
            try:
                parts.append(part(None if whole else slice(start, end)))
                start = end
            except management.OOM_EXCEPTION as error:
                single = whole or end - start == 1
                if single and self._recompute:
                    raise ValueError(
                        "DPT ran out of memory on the gradient of a single picture: lower the "
                        "resolution, unload other models, or correct fewer steps with end_percent"
                    ) from error
                self._recompute |= single
                self._most_rows = max(1, (end - start) // 2)
                management.soft_empty_cache()
                logger.warning("DPT: out of memory, going on with %d rows", self._most_rows)
            except RuntimeError as error:
                if "inference tensor" not in str(error).lower():
                    raise
                if around := _names(call):
                    raise ValueError(
                        f"DPT cannot differentiate what another node put around the model "
                        f"({around}): remove that node"
                    ) from error
                raise not_differentiable("some layer hides its weights from autograd") from error
        return tuple(
            None if any(value is None for value in each) else torch.cat(each)
            for each in zip(*parts, strict=True)
        )

    def _rows_that_fit(self, call: ModelCall) -> int:
        references = [each.shape for each in call.inputs.get("ref_latents") or ()]
        row = self.backbone.saved_bytes(self._config.tap, call.x.shape, references)
        return min(self._most_rows, int(management.get_free_memory(call.x.device) // row))


def tap_not_reached(tap: str, call: ModelCall) -> ValueError:
    """The error for a pass that ended before the tap."""
    return ValueError(
        f"the pass never came to tap {tap}: another node answers in the model's place "
        f"({_names(call) or 'a patch of its blocks'}). Remove it, or use mode lagged"
    )


def _names(call: ModelCall) -> str:
    """Keys of what other nodes put around the network."""
    return ", ".join(sorted(map(str, call.wrappers())))


def _patched(call: ModelCall) -> bool:
    """Whether other nodes patch the pass; patches may change feature maps in place."""
    options = call.options
    return any(options.get("patches", {}).values()) or bool(options.get("patches_replace"))


def _together(call: ModelCall) -> bool:
    """Whether the rows of a call must pass together: a patch of attention may mix them."""
    options = call.options
    patches = [name for name, each in options.get("patches", {}).items() if each]
    return any("attn" in name for name in patches) or bool(options.get("patches_replace"))


def _with_rows(x: torch.Tensor, place: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`x` with some rows replaced; the graph of `rows` is kept."""
    return rows if len(rows) == len(x) else x.index_copy(0, place, rows)


def _with_others(
    apply_model: ApplyModel, call: ModelCall, rows: ConditionalRows, predicted: torch.Tensor
) -> torch.Tensor:
    """A call's result: what was predicted for some rows, and a pass of the others."""
    denoised = torch.empty_like(call.x)
    denoised[rows.index] = predicted.to(denoised)
    others = torch.ones(len(call.x), dtype=torch.bool)
    others[rows.index.cpu()] = False
    if others.any():
        others = others.nonzero()[:, 0].to(call.x.device)
        denoised[others] = call.select(others).run(apply_model)
    return denoised
