"""A call of the host's model, and the same call for some of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ...dpt_core.backbones.base import rows_of

CHUNKED = ("cond_or_uncond", "uuids")
"""Options with an entry for each chunk of rows: whoever patches the model divides the batch by
them."""

PICTURES = "dpt_pictures"
"""Option that says which picture of the batch each row of a chunk draws, where not all pass."""

CACHES = ("easycache",)
"""Keys of the wrappers that answer in the network's place with what it answered before. They keep
tensors of the passes they see and count those passes."""


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

    @classmethod
    def of_arguments(
        cls,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **inputs: Any,
    ) -> ModelCall:
        """From what `apply_model` is called with."""
        inputs |= {"c_concat": c_concat, "c_crossattn": c_crossattn, "control": control}
        return cls(x, sigma, transformer_options or {}, inputs)

    def run(self, apply_model: Any, x: torch.Tensor | None = None) -> torch.Tensor:
        """Call `apply_model` with these arguments, or with another `x`."""
        inputs = dict(self.inputs)
        named = [inputs.pop(name, None) for name in ("c_concat", "c_crossattn", "control")]
        x = self.x if x is None else x
        return apply_model(x, self.sigma, *named, self.options, **inputs)

    def select(self, rows: torch.Tensor) -> ModelCall:
        """The same call for some rows `[R]` only; the options speak of those."""
        inputs = rows_of(self.inputs, rows, len(self.x))
        return ModelCall(self.x[rows], self.sigma[rows], self._options_of(rows), inputs)

    def with_options(self, **options: Any) -> ModelCall:
        """The same call with some options changed."""
        return replace(self, options={**self.options, **options})

    def uncached(self) -> ModelCall:
        """The call around the caches of other nodes; the call itself where there are none."""
        around = self.wrappers()
        kept = {key: each for key, each in around.items() if key not in CACHES}
        if len(kept) == len(around):
            return self
        return self.with_options(
            wrappers={**self.options["wrappers"], WrappersMP.DIFFUSION_MODEL: kept}
        )

    def wrappers(self) -> dict[str, list]:
        """What other nodes put around the network, by their keys."""
        around = self.options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {})
        return {key: each for key, each in around.items() if each}

    @property
    def chunk(self) -> int:
        """Rows in each chunk."""
        return len(self.x) // max(1, len(self.options.get(CHUNKED[0], ())))

    @property
    def pictures(self) -> list[int]:
        """Which picture of the batch each row of a chunk draws."""
        return self.options.get(PICTURES) or list(range(self.chunk))

    def _options_of(self, rows: torch.Tensor) -> dict[str, Any]:
        """Whole chunks keep an entry each; rows out of one get an entry of their own."""
        size, chosen = self.chunk, rows.tolist()
        starts = chosen[::size]
        whole = [start + offset for start in starts for offset in range(size)]
        if whole != chosen or any(start % size for start in starts):
            starts = chosen
        listed = {
            name: [self.options[name][start // size] for start in starts]
            for name in CHUNKED
            if name in self.options
        }
        return {**self.options, **listed}
