"""Self-correction inside any diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch

from .adapter import DiscriminativeAdapter
from .backbones.base import Backbone, BackboneCall, TapReached, replaced
from .backbones.checks import check_adapter, check_resident
from .backbones.registry import backbone_of
from .correction import Correction, ScoreFunction, gradient_of, score_gradient
from .corrector import Corrector
from .score import alignment_score


def score_function(
    backbone: Backbone,
    adapter: DiscriminativeAdapter,
    call: BackboneCall,
    text: torch.Tensor,
    forward: Callable[..., Any] | None = None,
) -> ScoreFunction:
    """The alignment score as a function of the backbone's latents.

    Args:
        backbone: the backbone; it runs up to the adapter's tap only.
        adapter: the adapter, on the backbone's device.
        call: what the backbone is called with, apart from the latents.
        text: `[B, D]` or `[1, D]` text vectors `y`.
        forward: of the backbone's module, where it is not the module's own.

    Returns:
        From latents `[B, ...]`, as the backbone takes them, to scores `[B]` in float32.

    Raises:
        ValueError: calling it: the pass ended without reaching the tap.
    """

    def score(x: torch.Tensor) -> torch.Tensor:
        scores: list[torch.Tensor] = []

        def read(features: torch.Tensor) -> torch.Tensor:
            scores.append(features_score(backbone, adapter, features, call, text))
            raise TapReached

        at = replace(call, x=x)
        with backbone.tapped(adapter.config.tap, at, read):
            backbone.run(forward or backbone.module, at)
        if not scores:
            raise ValueError(f"the forward pass never reached tap {adapter.config.tap!r}")
        return scores[0]

    return score


def text_vectors(pipeline: Any, prompts: Sequence[str], source: str = "eos_hidden") -> torch.Tensor:
    """Text vectors `y` of prompts, `[B, D]`.

    Args:
        pipeline: a diffusers pipeline.
        prompts: the prompts.
        source: one of :data:`dpt_core.config.TEXT_SOURCES`, the adapter's.
    """
    return backbone_of(pipeline).text_vectors(prompts, source)


def starts_of(scheduler: Any) -> list[float]:
    """Timesteps at which the steps of a run start, falling; schedulers of higher order repeat them.

    Args:
        scheduler: of a pipeline that runs; image to image begins part-way.
    """
    first = getattr(scheduler, "begin_index", None) or 0
    return list(dict.fromkeys(scheduler.timesteps.tolist()[first:]))


@contextmanager
def self_correcting(
    pipeline: Any,
    adapter: DiscriminativeAdapter,
    text: torch.Tensor | Callable[[], torch.Tensor],
    correction: Correction | None = None,
    *,
    guided: bool | None = None,
) -> Iterator[Corrector]:
    """Let a pipeline correct the latents that it denoises.

    Inside the context any loop that calls the pipeline's denoising network is self-correcting.
    Only the conditional rows move; the scheduler keeps stepping from its own latent, as published.
    A run ends when the scheduler's timesteps are set for the next.

    Args:
        pipeline: a diffusers pipeline, or anything with its network and `scheduler`.
        adapter: the adapter, on the network's device.
        text: `[B, D]`, or `[1, D]` for all pictures, text vectors of the positive prompts; or what
            returns them, where the pictures that are drawn together change.
        correction: settings; by default the preset balanced.
        guided: the network is called with as many unconditional rows as conditional ones, as
            diffusers does with classifier-free guidance; by default the pipeline is asked. Passes
            that a pipeline marks as unconditional stay as they are.

    Yields:
        The run, with its scores as they come.

    Raises:
        ValueError: the adapter does not fit the model, the scheduler does not say how much noise
            there is, or the network's weights come and go layer by layer.
    """
    correction = correction or Correction()
    backbone, scheduler = backbone_of(pipeline), pipeline.scheduler
    check_adapter(backbone, adapter.config)
    run = Corrector(correction, backbone.path)
    if not correction.strength:
        yield run
        return
    backbone.path.weights(torch.zeros(1))  # refuse what has no noise before anything is drawn
    check_resident(backbone.module)
    module, fresh, inside = backbone.module, True, False
    plain = module.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal fresh, inside
        call = backbone.call(args, kwargs)
        if fresh:
            run.begin(starts_of(scheduler))
            fresh = False
        if inside or not run.is_due(float(call.sigmas()[0])):
            return plain(*args, **kwargs)
        rows = conditional_rows(backbone, call, branch(), guided)
        if not len(call.x[rows]):
            return plain(*args, **kwargs)
        inside = True
        try:
            texts = text() if callable(text) else text
            return _corrected(backbone, adapter, run, call, rows, texts, plain)
        finally:
            inside = False

    set_plainly = scheduler.set_timesteps

    @wraps(set_plainly)  # pipelines ask for its signature
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        nonlocal fresh
        fresh = True
        set_plainly(*args, **kwargs)

    with (
        branches(module) as branch,
        replaced(module, "forward", forward),
        replaced(scheduler, "set_timesteps", set_timesteps),
    ):
        yield run


@contextmanager
def branches(module: Any) -> Iterator[Callable[[], str | None]]:
    """Tell which of its passes a pipeline is at: "cond" or "uncond", None where it says nothing.

    Families that guide in two passes say so through the network's `cache_context`.
    """
    names: list[str] = []
    plain = getattr(module, "cache_context", None)
    if plain is None:
        yield lambda: None
        return

    @contextmanager
    def cache_context(name: str, **more: Any) -> Iterator[None]:
        names.append(name)
        try:
            with plain(name, **more):
                yield
        finally:
            names.pop()

    with replaced(module, "cache_context", cache_context):
        yield lambda: names[-1] if names else None


def conditional_rows(
    backbone: Backbone, call: BackboneCall, branch: str | None, guided: bool | None = None
) -> slice:
    """The rows of a call that draw the positive prompts; none of an unconditional pass."""
    return slice(0, 0) if branch == "uncond" else backbone.conditional(call, guided)


@dataclass
class _Rows:
    """The conditional rows of a call, for the :class:`~dpt_core.corrector.Corrector`."""

    backbone: Backbone
    adapter: DiscriminativeAdapter
    call: BackboneCall
    text: torch.Tensor
    forward: Callable[..., Any]
    mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.x, self.sigma = self.call.x, self.call.sigmas()
        self.text = self.text.expand(len(self.x), -1)
        self.image = torch.arange(len(self.x))
        self._half = self.x.dtype == torch.float16

    def gradients(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        score = score_function(self.backbone, self.adapter, self.call, self.text, self.forward)
        return score_gradient(x, score, self._half)

    def predictions(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        found: list[torch.Tensor] = []

        def read(features: torch.Tensor) -> torch.Tensor:
            score = features_score(self.backbone, self.adapter, features, self.call, self.text)
            found[:] = score.detach(), gradient_of(score, leaf, self._half)
            torch.set_grad_enabled(False)  # the rest needs no graph; enable_grad restores it
            return features.detach()

        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            call = replace(self.call, x=leaf)
            with self.backbone.tapped(self.adapter.config.tap, call, read):
                output = self.backbone.run(self.forward, call)
        return output, *(found or (None, None))


def _corrected(
    backbone: Backbone,
    adapter: DiscriminativeAdapter,
    run: Corrector,
    call: BackboneCall,
    rows: slice,
    text: torch.Tensor,
    forward: Callable[..., Any],
) -> Any:
    """A call's output where some rows are corrected."""
    part = call.select(rows)
    todo = run.correct(_Rows(backbone, adapter, part, text, forward))
    if todo.prediction is None:
        x = call.x.clone()
        x[rows] = part.x + todo.move
        predicted = backbone.run(forward, replace(call, x=x))
    else:
        predicted = _with_others(backbone, call, rows, todo.prediction, forward)
    if todo.clean is not None:
        predicted = predicted.clone()
        predicted[rows] += backbone.shift(part.sigmas(), todo.clean).to(predicted)
    return backbone.result(call, predicted)


def _with_others(
    backbone: Backbone,
    call: BackboneCall,
    rows: slice,
    predicted: torch.Tensor,
    forward: Callable[..., Any],
) -> torch.Tensor:
    """The rows that were predicted already, with a pass of those before or after them."""
    own = torch.zeros(len(call.x), dtype=torch.bool)
    own[rows] = True
    if own.all():
        return predicted
    others = backbone.run(forward, call.select((~own).nonzero()[:, 0]))
    whole = others.new_empty(len(own), *others.shape[1:])
    whole[own.to(whole.device)], whole[~own.to(whole.device)] = predicted.to(others), others
    return whole


def features_score(
    backbone: Backbone,
    adapter: DiscriminativeAdapter,
    features: torch.Tensor,
    call: BackboneCall,
    text: torch.Tensor,
) -> torch.Tensor:
    """Alignment scores `[B]`, float32, of a call's features `[B, C, h, w]` at the tap."""
    sigma = torch.as_tensor(call.sigma, device=features.device).flatten().expand(len(features))
    queries = adapter.match(features.float(), backbone.path.level(sigma))
    return alignment_score(queries, adapter.compared(text))
