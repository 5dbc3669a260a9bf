"""What self-correction, scores and training need to know of a denoising network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Reader = Callable[[torch.Tensor], torch.Tensor]
"""Called with the tapped feature map `[R, C, h, w]`; returns what the pass goes on with, of the
same shape, or raises :class:`TapReached` to end the pass there."""


TIMES = ("timestep", "t")
"""Inputs that tell a network the noise level."""


class TapReached(Exception):
    """Ends a forward pass early: everything the adapter needs has been computed."""


class NoisePath(Protocol):
    """How a model's noisy latent is made: `x = α·x₀ + s·ε`.

    A noise level is told in the model's own coordinate, called sigma here: larger is noisier. It
    is the timestep of diffusers' discrete schedules and the host's sigma.
    """

    def weights(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """α and s of noise levels `[R]`, each `[R]`."""
        ...

    def level(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the adapter is told of noise levels `[R]`: `[R]` in [0, 1000)."""
        ...

    def sigma(self, level: float) -> float:
        """The inverse of :meth:`level`."""
        ...

    def reached(self, percent: float) -> float:
        """Sigma when a share of the sampling, in [0, 1], is over."""
        ...


@dataclass(frozen=True)
class Noise:
    """What a correction needs to know of the noise in rows of latents.

    Attributes:
        scale: a, `[R, 1, ...]`: `z = a·x` is the variance-preserving latent.
        variance: 1 − ᾱ, `[R, 1, ...]`, the share of noise in z.
        signal: √ᾱ, `[R, 1, ...]`.
    """

    scale: torch.Tensor
    variance: torch.Tensor
    signal: torch.Tensor

    @classmethod
    def of(cls, path: NoisePath, sigma: torch.Tensor, x: torch.Tensor) -> Noise:
        """The noise of latents `x` `[R, ...]` at levels `sigma` `[R]`; float32."""
        shape = (len(sigma), *[1] * (x.ndim - 1))
        alpha, noise = (part.cpu().double() for part in path.weights(sigma))
        scale = (alpha.square() + noise.square()).rsqrt()
        parts = scale, (scale * noise).square(), scale * alpha
        return cls(*(part.to(x.device, torch.float32).view(shape) for part in parts))


@dataclass(frozen=True)
class BackboneCall:
    """What a denoising network was called with.

    Attributes:
        x: `[N, ...]` what it denoises.
        sigma: the noise level in the network's coordinate, a number or `[N]`.
        inputs: everything else, by name.
    """

    x: torch.Tensor
    sigma: Any
    inputs: dict[str, Any]

    def select(self, rows: slice | torch.Tensor) -> BackboneCall:
        """The same call for some rows only; what has no row for each stays."""
        sigma, inputs = (rows_of(part, rows, len(self.x)) for part in (self.sigma, self.inputs))
        return BackboneCall(self.x[rows], sigma, inputs)

    def at(self, x: torch.Tensor, sigma: torch.Tensor) -> BackboneCall:
        """The same call on other latents, at another noise level `[N]`."""
        told = {name: value for name, value in self.inputs.items() if name not in TIMES}
        return BackboneCall(x, sigma, told)

    def sigmas(self) -> torch.Tensor:
        """Noise levels `[N]`."""
        sigma = torch.as_tensor(self.sigma, device=self.x.device)
        return sigma.flatten().expand(len(self.x))


class Backbone(Protocol):
    """A denoising network inside a diffusers pipeline, or alone.

    Attributes:
        family: stored in the adapter's config.
        texts: sources of a text vector that fit, the best first.
        module: the network.
        path: its noise.
        patch: latent cells per side of what the network takes as one.
        sign: −1 where the pipeline turns a prediction round before the scheduler gets it.
    """

    family: str
    texts: tuple[str, ...]
    module: nn.Module
    path: NoisePath
    patch: int
    sign: float

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels, in order of computation."""
        ...

    def tapped(self, tap: str, call: BackboneCall, reader: Reader) -> AbstractContextManager[None]:
        """A context in which a pass of the module for `call` hands its features at a tap to
        `reader`."""
        ...

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """What can be computed again on the way back, below a tap."""
        ...

    def call(self, args: tuple, kwargs: dict[str, Any]) -> BackboneCall:
        """What the module is called with, from the arguments of its forward."""
        ...

    def run(self, forward: Callable[..., Any], call: BackboneCall) -> torch.Tensor:
        """What the module's `forward` predicts, like the call's `x`."""
        ...

    def result(self, call: BackboneCall, predicted: torch.Tensor) -> Any:
        """A prediction as whoever made the call expects the module to return it."""
        ...

    def conditional(self, call: BackboneCall, guided: bool | None = None) -> slice:
        """The rows of a call that draw the positive prompts.

        Args:
            call: of a guided or an unguided pass.
            guided: whether it has unconditional rows too; by default the pipeline is asked.
        """
        ...

    def shift(self, sigma: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """How the module's output changes where the clean prediction x̂₀ changes by `clean`."""
        ...

    def clean(self, sigma: torch.Tensor, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The clean prediction x̂₀ `[R, ...]` that a prediction means at latents `x`, as the
        scheduler is given it: guided, and of flow models from picture to noise."""
        ...

    def target(self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What the module should predict of latents `clean` with `noise` at levels `[B]`, each
        `[B, ...]` as :meth:`packed` gives it."""
        ...

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[B, C, h, w]` as the module takes them."""
        ...

    def unpacked(self, x: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """The inverse of :meth:`packed`; of a size (height, width), by default square."""
        ...

    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Keyword inputs for prompts, as the pipeline encodes them, `[B, ...]` each.

        Args:
            prompts: `B` prompts.
            size: (height, width) of the latents.
        """
        ...

    def arguments(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Arguments of the pipeline's call that mean a guidance scale; 1 is none."""
        ...

    def text_vectors(
        self, prompts: Sequence[str], source: str, inputs: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """Text vectors y of prompts, `[B, D]`.

        Args:
            prompts: `B` prompts.
            source: one of :data:`dpt_core.config.TEXT_SOURCES`.
            inputs: what :meth:`conditioning` made of the same prompts: a text encoder that has
                read them need not read them again.
        """
        ...


def read_features(
    backbone: Backbone, tap: str, call: BackboneCall, *, stop: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The feature map `[B, C, h, w]` at a tap in a pass of a backbone's module.

    Args:
        backbone: the network.
        tap: one of its taps.
        call: what it is called with.
        stop: end the pass at the tap.

    Returns:
        The features, and what the pass predicts, None where it ended at the tap.

    Raises:
        ValueError: the pass ended without reaching the tap.
    """
    found: list[torch.Tensor] = []
    predicted = None

    def read(features: torch.Tensor) -> torch.Tensor:
        found.append(features)
        if stop:
            raise TapReached
        return features

    with backbone.tapped(tap, call, read):
        predicted = backbone.run(backbone.module, call)
    if not found:
        raise ValueError(f"the forward pass never reached tap {tap!r}")
    return found[-1], predicted


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks keep only their inputs for the way back, and compute the rest once more there."""

    def again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    with ExitStack() as undo:
        for block in blocks:
            undo.enter_context(replaced(block, "forward", partial(again, block.forward)))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of one object for a while; what it hides comes back."""
    hidden = vars(owner).get(name, replaced)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        if hidden is not replaced:
            setattr(owner, name, hidden)


def output_of(call: BackboneCall, predicted: Any, kind: str) -> Any:
    """A prediction as diffusers' networks return it.

    Args:
        call: says in `return_dict` whether as a tuple.
        predicted: what the network predicts.
        kind: the class for it, below `diffusers.models`.
    """
    if not call.inputs.get("return_dict", True):
        return (predicted,)
    module, name = kind.rsplit(".", 1)
    return getattr(import_module(f"diffusers.models.{module}"), name)(sample=predicted)


def second_half(pipeline: Any, call: BackboneCall, guided: bool | None) -> slice:
    """The conditional rows where a guided pipeline puts the unconditional ones first.

    Args:
        pipeline: tells whether it is guided.
        call: of the network.
        guided: what is known of that; None asks the pipeline.
    """
    if guided is None:
        guided = getattr(pipeline, "do_classifier_free_guidance", True)
    return slice(len(call.x) // 2, None) if guided else slice(None)


def rows_of(value: Any, rows: slice | torch.Tensor, total: int) -> Any:
    """Some rows of nested inputs; what has no row for each of `total` stays."""
    if torch.is_tensor(value):
        per_row = value.ndim and len(value) == total
        return value[rows.to(value.device) if torch.is_tensor(rows) else rows] if per_row else value
    if isinstance(value, Mapping):
        return {key: rows_of(item, rows, total) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(rows_of(item, rows, total) for item in value)
    return value
