"""Scores and gradients of one model call, taken in the middle of a real sampling run."""

from __future__ import annotations

from collections.abc import Callable

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from dpt_pack.nodes.host.calls import ModelCall
from dpt_pack.nodes.host.rows import Targets
from dpt_pack.nodes.host.scoring import Scorer


class Probe(comfy.samplers.Sampler):
    """A sampler that calls the model once and looks at what the pack sees there."""

    def __init__(self, adapter, look: Callable, prepare: Callable = lambda patcher: None) -> None:
        self._adapter, self._look, self._prepare = adapter, look, prepare

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image,
        denoise_mask=None,
        disable_pbar=False,
    ):
        model = model_wrap.inner_model
        self._prepare(model_wrap.model_patcher)
        self._scorer = Scorer(self._adapter, model)
        self._targets = Targets(model_wrap.conds, self._adapter.config, self._scorer.backbone)
        conds = [model_wrap.conds["positive"], model_wrap.conds["negative"]]
        x = noise * (1 + sigmas[0] ** 2) ** 0.5
        sigma = sigmas[:1].expand(len(x))
        comfy.samplers.calc_cond_batch(model, conds, x, sigma, extra_args["model_options"])
        return noise

    def apply_model(self, executor, *args, **inputs):
        call = ModelCall.of_arguments(*args, **inputs)
        if (rows := self._targets.rows_of(call)) is not None:
            self._look(self._scorer, executor, call, rows)
        return torch.zeros_like(call.x)


def probe(
    model,
    adapter,
    positive,
    negative,
    look,
    prepare=lambda patcher: None,
    sigma: float = 2.0,
    size: tuple[int, ...] = (2, 4, 16, 16),
    noise: torch.Tensor | None = None,
) -> None:
    """Let `look(scorer, apply_model, call, rows)` see one call of a model on random latents."""
    sampler = Probe(adapter, look, prepare)
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", sampler.apply_model)
    model.set_additional_models("probe", [adapter.patcher])
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    if noise is None:
        noise = torch.randn(size, generator=torch.Generator().manual_seed(3))
    guider.sample(
        noise, torch.zeros_like(noise), sampler, torch.tensor([sigma, 0.0]), disable_pbar=True
    )


def gradient_of(model, adapter, positive, negative, **options) -> torch.Tensor:
    """The score's gradient at the probed call."""
    found = []

    def look(scorer, apply_model, call, rows) -> None:
        found.append(scorer.gradients(apply_model, call, rows, call.x)[1])

    probe(model, adapter, positive, negative, look, **options)
    return found[0]


def check_finite_differences(model, adapter, positive, negative, **options) -> None:
    """The gradient predicts how the score changes, along itself and along a random direction."""
    checked = []

    def look(scorer, apply_model, call, rows) -> None:
        _, gradient = scorer.gradients(apply_model, call, rows, call.x)
        assert gradient.abs().max() > 0

        def score_at(x: torch.Tensor) -> torch.Tensor:
            moved = call.x.clone()
            moved[rows.index] = x
            there = ModelCall(moved, call.sigma, call.options, call.inputs)
            return scorer.scores(apply_model, there, rows).double()

        x = call.x[rows.index]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
        for direction in (gradient, noise + gradient * (noise.norm() / gradient.norm())):
            length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            unit = direction / length
            width = 0.002 * x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) / 10
            difference = score_at(x + width * unit) - score_at(x - width * unit)
            measured = difference / (2 * width.flatten().double())
            expected = (gradient * unit).flatten(1).sum(1).double()
            torch.testing.assert_close(expected, measured, rtol=0.03, atol=1e-4)
        checked.append(rows)

    probe(model, adapter, positive, negative, look, **options)
    assert checked, "the probed call had no conditional rows"
