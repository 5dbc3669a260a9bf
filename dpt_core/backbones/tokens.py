"""What the transformers of diffusers have in common: blocks of tokens, and noise along a line.

Taps are `block0`, `block1`, … through all stacks in order, as in the host; features are the
picture's own tokens behind a block, folded to a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import nn

from .base import BackboneCall, Reader, TapReached, output_of, recomputed, replaced
from .flow import FlowNoise

TEXT_TOKENS = 512
"""Tokens of text to reckon with where memory is estimated."""


class Stack(NamedTuple):
    """Blocks of one kind.

    Attributes:
        blocks: attribute of the network that lists them.
        item: which part of a block's output begins with the picture's own tokens; None where the
            output is one stream that does.
    """

    blocks: str
    item: int | None = 1


class Transformer:
    """A transformer of a diffusers pipeline; see :class:`~dpt_core.backbones.base.Backbone`.

    A family says in class attributes what it consists of, and how it is called.

    Args:
        pipeline: has `transformer` and `scheduler`; for texts also the encoders of the pipeline.

    Attributes:
        stacks: its blocks, in order of computation.
        saved: activations that a block saves for the way back, in token widths; measured.
        names: of its forward's first arguments.
        sign: of its prediction, where 1 is from picture to noise.
    """

    family: str
    texts: tuple[str, ...]
    stacks: tuple[Stack, ...]
    names: tuple[str, ...]
    saved: float
    patch = 2
    sign = 1.0

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.module: nn.Module = pipeline.transformer
        self.path = FlowNoise(pipeline.scheduler)

    def grid(self, call: BackboneCall) -> tuple[int, int]:
        """Tokens of a call's picture: rows and columns."""
        return call.x.shape[-2] // self.patch, call.x.shape[-1] // self.patch

    def width(self) -> int:
        """Channels of a token."""
        return self.module.inner_dim

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels."""
        return {f"block{index}": self.width() for index in range(len(self._places()))}

    @contextmanager
    def tapped(self, tap: str, call: BackboneCall, reader: Reader) -> Iterator[None]:
        """Hand the features of every pass at a tap to `reader`; it may end the pass."""
        stack, block = self._places()[_index(tap)]
        height, width = self.grid(call)

        def read(block: nn.Module, inputs: tuple, output: Any) -> Any:
            stream = output if stack.item is None else output[stack.item]
            own = stream[:, : height * width]
            features = rearrange(own, "b (h w) c -> b c h w", h=height)
            changed = reader(features)
            if changed is features:
                return output
            tokens = rearrange(changed, "b c h w -> b (h w) c").to(stream)
            stream = torch.cat((tokens, stream[:, height * width :]), dim=1)
            if stack.item is None:
                return _without_graph(stream)
            parts = [stream if n == stack.item else each for n, each in enumerate(output)]
            return tuple(map(_without_graph, parts))

        with ExitStack() as undo:
            undo.callback(block.register_forward_hook(read).remove)
            if self._is_too_large(tap, call):
                undo.enter_context(recomputed(self.blocks(tap)))
            undo.enter_context(suppress(TapReached))
            yield

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """The blocks up to a tap."""
        return [block for _, block in self._places()[: _index(tap) + 1]]

    def saved_bytes(self, tap: str, call: BackboneCall) -> float:
        """Memory of a gradient pass to a tap, by what a block of the family was seen to save."""
        height, width = self.grid(call)
        tokens = len(call.x) * (height * width + TEXT_TOKENS)
        blocks = len(self.blocks(tap))
        return blocks * tokens * self.width() * max(call.x.element_size(), 2) * self.saved

    def call(self, args: tuple, kwargs: dict[str, Any]) -> BackboneCall:
        """What the transformer is called with; the rest of a family's own is in its `_taken`."""
        return self._taken({**dict(zip(self.names, args, strict=False)), **kwargs})

    def run(self, forward: Callable[..., Any], call: BackboneCall) -> torch.Tensor:
        """What the transformer predicts, like the call's `x`."""
        wanted = getattr(self.module, "gradient_checkpointing", False)
        with ExitStack() as undo:
            if wanted and torch.is_grad_enabled():
                # Diffusers' own recomputation would run the hook of a tap twice.
                undo.enter_context(replaced(self.module, "gradient_checkpointing", False))
                undo.enter_context(recomputed([block for _, block in self._places()]))
            given = self._given(call) | {"return_dict": False}
            # Networks take things out of the dictionaries that they are given.
            given = {key: dict(v) if isinstance(v, dict) else v for key, v in given.items()}
            return self._prediction(forward(**given)[0], call)

    def result(self, call: BackboneCall, predicted: torch.Tensor) -> Any:
        """A prediction as diffusers' transformers return it."""
        kind = "modeling_outputs.Transformer2DModelOutput"
        return output_of(call, self._returned(predicted), kind)

    def conditional(self, call: BackboneCall, guided: bool | None = None) -> slice:
        """All rows: the pipelines of most families make a pass of its own for the others."""
        return slice(None)

    def shift(self, sigma: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """By `x̂₀ = x − t v̂`."""
        share = self.path.weights(sigma)[1].to(clean).view(-1, *[1] * (clean.ndim - 1))
        return -self.sign * clean / share

    def clean(self, sigma: torch.Tensor, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """`x̂₀ = x − t v̂`; schedulers are given the way from picture to noise."""
        share = self.path.weights(sigma)[1].to(x).view(-1, *[1] * (x.ndim - 1))
        return x - share * output

    def target(self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The velocity from picture to noise, or the other way."""
        return self.sign * (noise - clean)

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """Most take latents as they are."""
        return latents

    def unpacked(self, x: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """Most take latents as they are."""
        return x

    def arguments(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Most say it as Stable Diffusion does."""
        return {"guidance_scale": guidance}

    def _taken(self, inputs: dict[str, Any]) -> BackboneCall:
        raise NotImplementedError

    def _given(self, call: BackboneCall) -> dict[str, Any]:
        raise NotImplementedError

    def _prediction(self, output: Any, call: BackboneCall) -> torch.Tensor:
        return output

    def _returned(self, predicted: torch.Tensor) -> Any:
        return predicted

    def _places(self) -> list[tuple[Stack, nn.Module]]:
        return [(stack, each) for stack in self.stacks for each in self._list(stack)]

    def _list(self, stack: Stack) -> nn.ModuleList:
        return getattr(self.module, stack.blocks)

    def _is_too_large(self, tap: str, call: BackboneCall) -> bool:
        """Whether a gradient pass would not fit the GPU without recomputation."""
        if not (call.x.is_cuda and torch.is_grad_enabled()):
            return False
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return self.saved_bytes(tap, call) > torch.cuda.mem_get_info(call.x.device)[0] + unused


def timesteps_of(call: BackboneCall) -> torch.Tensor:
    """Timesteps `[N]` that a network is to be called with, of 1000: those it was called with."""
    return call.inputs["timestep"] if "timestep" in call.inputs else call.sigmas()


def _index(tap: str) -> int:
    return int(tap.removeprefix("block"))


def _without_graph(stream: Any) -> Any:
    """Past the tap nothing is kept for the way back."""
    graph = torch.is_tensor(stream) and not torch.is_grad_enabled()
    return stream.detach() if graph else stream
