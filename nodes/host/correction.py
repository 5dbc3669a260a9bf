"""Self-correction inside the host's samplers.

Three of the host's wrappers carry it, so it stacks with other packs and works with any sampler:
around a sampling run (state), around a batch of conditionings (which chunk has which text), and
around the model call (the correction itself). Per-run state lives in the run's model options.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ...dpt_core.correction import Correction, lagged_move, step
from .adapter import LoadedAdapter
from .rows import ConditionalRows, ModelCall, conditional_rows
from .run import Run, mask_rows
from .unet import check_backbone

logger = logging.getLogger(__name__)

KEY = "dpt_self_correction"

Listener = Callable[[int, int, torch.Tensor], None]
"""Called after each corrected call with step, number of steps and scores `[B]`."""


def with_self_correction(
    model: Any,
    adapter: LoadedAdapter | None,
    correction: Correction,
    listener: Listener | None = None,
) -> Any:
    """A model that corrects itself while any sampler samples it.

    A second correction replaces the first. Strength 0 or no adapter gives the model back as is.

    Args:
        model: the host's ModelPatcher; not changed.
        adapter: the adapter, or None.
        correction: what to do.
        listener: told the scores as they come.

    Raises:
        ValueError: see :func:`~nodes.host.unet.check_backbone`.
    """
    if adapter is None or correction.strength == 0:
        return model
    check_backbone(model, adapter.config)
    corrector = SelfCorrector(adapter, correction, listener)
    model = model.clone()
    for kind, wrapper in (
        (WrappersMP.SAMPLER_SAMPLE, corrector.sample),
        (WrappersMP.CALC_COND_BATCH, corrector.calc_cond_batch),
        (WrappersMP.APPLY_MODEL, corrector.apply_model),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    model.set_additional_models(KEY, [adapter.patcher])
    return model


class SelfCorrector:
    """The wrappers. Holds what was asked for, never what happens during a run."""

    def __init__(
        self, adapter: LoadedAdapter, correction: Correction, listener: Listener | None
    ) -> None:
        self._adapter = adapter
        self._correction = correction
        self._listener = listener

    def sample(self, executor: Any, guider: Any, sigmas: torch.Tensor, extra_args: dict, *args):
        """Around a run: check the wiring before the first step, keep the run's state."""
        mask = args[3] if len(args) > 3 else None
        run = Run(guider, self._adapter, sigmas, mask)
        extra_args["model_options"]["transformer_options"][KEY] = run
        result = executor(guider, sigmas, extra_args, *args)
        if not run.corrected:
            logger.warning(
                "DPT: no step was corrected; start_percent, end_percent and every_n_steps leave "
                "none of the %d steps",
                run.steps,
            )
        return result

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: list, x: Any, t: Any, options: dict
    ):
        """Around a batch of conditionings: note which chunk has which text."""
        if run := options.get("transformer_options", {}).get(KEY):
            run.targets.register(conds)
        return executor(model, conds, x, t, options)

    def apply_model(
        self,
        executor: Any,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Around the model call: move the conditional rows, then let the backbone denoise them."""
        inputs |= {"c_concat": c_concat, "c_crossattn": c_crossattn, "control": control}
        call = ModelCall(x, sigma, transformer_options or {}, inputs)
        run = call.options.get(KEY)
        rows = conditional_rows(call, run.targets) if run and self._is_due(run, sigma) else None
        if rows is None:
            return call.run(executor)
        ways = {"exact": self._exact, "lagged": self._lagged, "guidance": self._guidance}
        return ways[self._correction.mode](executor, run, call, rows)

    def _is_due(self, run: Run, sigma: torch.Tensor) -> bool:
        level = float(sigma[0])
        first, last = (
            run.model_sampling.percent_to_sigma(percent)
            for percent in (self._correction.start_percent, self._correction.end_percent)
        )
        in_range = last <= level <= first
        return in_range and run.step_at(level) % self._correction.every_n_steps == 0

    def _exact(
        self, executor: Any, run: Run, call: ModelCall, rows: ConditionalRows
    ) -> torch.Tensor:
        """Move the conditional rows by their own gradient, then denoise all rows together."""
        x, sigma = call.x[rows.index], call.sigma[rows.index]
        key = (float(sigma[0]), rows.key)
        move = run.known(key, x)
        if move is None:
            move = torch.zeros_like(x)
            for inner in range(self._correction.inner_steps):
                scores, gradient = run.scorer.gradients(executor, call, rows, x + move)
                move += run.to_x(self._step(run, gradient, rows, sigma), sigma).to(x)
                if inner == 0:
                    self._report(run, key[0], rows, scores)
            run.remember(key, x, move)
        return _denoise_moved(executor, run, call, rows, move)

    def _lagged(
        self, executor: Any, run: Run, call: ModelCall, rows: ConditionalRows
    ) -> torch.Tensor:
        """Move the conditional rows by the previous calls' gradients; keep this call's too."""
        x, sigma = call.x[rows.index], call.sigma[rows.index]
        key = (float(sigma[0]), rows.key)
        if (move := run.known(key, x)) is not None:
            return _denoise_moved(executor, run, call, rows, move)
        previous = run.lagged.get(rows.key)
        move = torch.zeros_like(x) if previous is None else run.to_x(previous, sigma).to(x)
        predicted, scores, gradient = run.scorer.predictions(executor, call, rows, x + move)
        wanted = self._step(run, gradient, rows, sigma)
        run.lagged[rows.key] = lagged_move(previous, wanted)
        self._report(run, key[0], rows, scores)
        run.remember(key, x, move)
        return _with_others(executor, call, rows, run.rebase(predicted, sigma, x, move))

    def _guidance(
        self, executor: Any, run: Run, call: ModelCall, rows: ConditionalRows
    ) -> torch.Tensor:
        """Denoise the conditional rows, then move the prediction by their gradient."""
        x, sigma = call.x[rows.index], call.sigma[rows.index]
        key = (float(sigma[0]), rows.key)
        if (move := run.known(key, x)) is not None:
            denoised = call.run(executor).clone()
            denoised[rows.index] += move.to(denoised)
            return denoised
        predicted, scores, gradient = run.scorer.predictions(executor, call, rows, x)
        move = run.to_x(self._step(run, gradient, rows, sigma), sigma)
        self._report(run, key[0], rows, scores)
        run.remember(key, x, move)
        return _with_others(executor, call, rows, predicted + move.to(predicted))

    def _step(
        self, run: Run, gradient: torch.Tensor, rows: ConditionalRows, sigma: torch.Tensor
    ) -> torch.Tensor:
        """How far the variance-preserving latent moves, `[R, C, h, w]`."""
        run.warn_once(gradient)
        wanted, scale = self._correction, run.input_scale(sigma)
        noise = (scale * sigma.view_as(scale)) ** 2
        move = step(gradient / scale, wanted.strength, rule=wanted.step, noise_variance=noise)
        return move if run.mask is None else move * mask_rows(run.mask, rows).to(move)

    def _report(self, run: Run, sigma: float, rows: ConditionalRows, scores: torch.Tensor) -> None:
        run.corrected += 1
        if self._listener is not None:
            images = int(rows.image.max()) + 1
            per_image = scores.view(-1, images).mean(0)  # chunks of a picture follow each other
            self._listener(run.step_at(sigma), run.steps, per_image.cpu())


def _denoise_moved(
    executor: Any, run: Run, call: ModelCall, rows: ConditionalRows, move: torch.Tensor
) -> torch.Tensor:
    """A call's result where some rows are denoised at `x + move`."""
    x, sigma = call.x[rows.index], call.sigma[rows.index]
    corrected = call.x.clone()
    corrected[rows.index] = x + move
    denoised = call.run(executor, corrected).clone()
    denoised[rows.index] = run.rebase(denoised[rows.index], sigma, x, move)
    return denoised


def _with_others(
    executor: Any, call: ModelCall, rows: ConditionalRows, predicted: torch.Tensor
) -> torch.Tensor:
    """A call's result: what was predicted for some rows, and a pass of the others."""
    denoised = torch.empty_like(call.x)
    denoised[rows.index] = predicted.to(denoised)
    others = torch.ones(len(call.x), dtype=torch.bool)
    others[rows.index.cpu()] = False
    if others.any():
        others = others.nonzero()[:, 0].to(call.x.device)
        denoised[others] = call.select(others).run(executor)
    return denoised
