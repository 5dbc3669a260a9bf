"""Rows of a model call: which are conditional, and a call restricted to some of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .texts import Target, Targets


@dataclass(frozen=True)
class ModelCall:
    """The arguments of the host's `apply_model`.

    Attributes:
        x: `[N, C, h, w]` noisy latents in the sampler's space.
        sigma: `[N]` noise levels.
        options: transformer options.
        inputs: everything else by keyword, e.g. `c_crossattn`, `control`, `y`.
    """

    x: torch.Tensor
    sigma: torch.Tensor
    options: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)

    def run(self, apply_model: Any, x: torch.Tensor | None = None) -> torch.Tensor:
        """Call `apply_model` with these arguments, or with another `x`."""
        inputs = dict(self.inputs)
        named = [inputs.pop(name, None) for name in ("c_concat", "c_crossattn", "control")]
        x = self.x if x is None else x
        return apply_model(x, self.sigma, *named, self.options, **inputs)

    def select(self, rows: torch.Tensor) -> ModelCall:
        """The same call for some rows `[R]` only."""
        total = len(self.x)
        inputs = {name: _select(value, rows, total) for name, value in self.inputs.items()}
        return ModelCall(self.x[rows], self.sigma[rows], self.options, inputs)


def _select(value: Any, rows: torch.Tensor, total: int) -> Any:
    if torch.is_tensor(value):
        per_row = value.ndim and value.shape[0] == total
        return value[rows.to(value.device)] if per_row else value
    if isinstance(value, dict):
        return {key: _select(item, rows, total) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_select(item, rows, total) for item in value)
    return value


@dataclass(frozen=True)
class ConditionalRows:
    """The conditional rows of a call.

    Attributes:
        index: `[R]` rows in the call.
        image: `[R]` which picture of the batch a row draws.
        text: `[R, D]` text vectors.
        areas: per row, the area it covers, or None for the whole latent.
        key: identifies the set of chunks the rows belong to.
    """

    index: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor
    areas: list[tuple[int, ...] | None]
    key: tuple


def conditional_rows(call: ModelCall, targets: Targets) -> ConditionalRows | None:
    """Find the rows of a call that have a target, None if there are none."""
    chunks = list(zip(call.options["cond_or_uncond"], call.options["uuids"], strict=True))
    size = len(call.x) // len(chunks)
    found = [(k, target) for k, chunk in enumerate(chunks) if (target := targets.of(*chunk))]
    if not found:
        return None
    device = call.x.device
    image = torch.arange(size, device=device)
    return ConditionalRows(
        index=torch.cat([image + k * size for k, _ in found]),
        image=image.repeat(len(found)),
        text=torch.cat([_repeat(target, size).to(device) for _, target in found]),
        areas=[target.area for _, target in found for _ in range(size)],
        key=tuple(chunks[k] for k, _ in found),
    )


def _repeat(target: Target, size: int) -> torch.Tensor:
    """Text vectors for `size` pictures; a shorter list of prompts repeats, as the host has it."""
    return target.text[torch.arange(size) % len(target.text)]
