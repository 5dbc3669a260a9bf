"""Every transformer of the host: where its image tokens are and how to stop a pass there.

A family is one entry in :data:`FAMILIES`. Taps are `block0`, `block1`, … through all its stacks in
order; features are the image tokens behind a block, folded to a grid. A forward hook on the block
reads them, on every host alike: the host's patch slots differ by family, hold one function each in
places, and are missing in some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from torch import nn

from ....dpt_core.backbones.base import Reader
from ....dpt_core.backbones.checks import check_text
from ..calls import ModelCall

TEXT_TOKENS = 512
"""Tokens of text to reckon with where memory is estimated."""


@dataclass(frozen=True)
class Stack:
    """Blocks of one kind.

    Attributes:
        blocks: attribute of the network that lists them.
        item: which part of a block's output holds the image tokens, None for an output that is one.
        first: where in that stream the picture's own tokens begin: `"start"`, `"end"` (they are
            the last ones), or `"text"` (they follow the text).
    """

    blocks: str
    item: int | None = None
    first: str = "start"


@dataclass(frozen=True)
class TokenFamily:
    """What sets one family of transformers apart.

    Attributes:
        stacks: its blocks, in order of computation.
        width: attribute of the network: channels of a token.
        patch: attribute of the network: latent cells per side of a token.
        saved: activations that a block saves for the way back, in token widths.
        texts: sources of a text vector that fit, the best first.
        pooled: how much of the host's pooled output is the vector `pooled`; None for all of it.
        multiple: attribute of the network, or None: the picture's tokens are padded to a multiple.
        is_one: whether a network of the class is of this family; every one if None.
    """

    stacks: tuple[Stack, ...]
    width: str
    patch: str
    saved: float
    texts: tuple[str, ...] = ("mean",)
    pooled: int | None = None
    multiple: str | None = None
    is_one: Callable[[nn.Module], bool] | None = None


def _has(name: str) -> Callable[[nn.Module], bool]:
    return lambda network: getattr(network, name, None) is not None


_FLUX = (Stack("double_blocks", 0), Stack("single_blocks", None, "text"))

FAMILIES: dict[str, tuple[str, TokenFamily]] = {
    "sd3": (
        "ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",
        TokenFamily((Stack("joint_blocks", 1),), "hidden_size", "patch_size", 24, ("pooled",), 768),
    ),
    "flux": (
        "ldm.flux.model.Flux",
        TokenFamily(
            _FLUX, "hidden_size", "patch_size", 14, ("pooled",), is_one=_has("vector_in")
        ),
    ),
    "flux2": (
        "ldm.flux.model.Flux",
        TokenFamily(
            _FLUX, "hidden_size", "patch_size", 18,
            is_one=lambda network: getattr(network.params, "global_modulation", False),
        ),
    ),
    "chroma": (
        "ldm.chroma.model.Chroma",
        TokenFamily(_FLUX, "hidden_size", "patch_size", 14),
    ),
    "qwen_image": (
        "ldm.qwen_image.model.QwenImageTransformer2DModel",
        TokenFamily((Stack("transformer_blocks", 1),), "inner_dim", "patch_size", 14),
    ),
    "z_image": (
        "ldm.lumina.model.NextDiT",
        TokenFamily(
            (Stack("layers", None, "end"),), "dim", "patch_size", 28,
            multiple="pad_tokens_multiple", is_one=_has("pad_tokens_multiple"),
        ),
    ),
    "lumina2": (
        "ldm.lumina.model.NextDiT",
        TokenFamily(
            (Stack("layers", None, "end"),), "dim", "patch_size", 28,
            is_one=lambda network: getattr(network, "clip_text_pooled_proj", None) is None,
        ),
    ),
    "hidream": (
        "ldm.hidream.model.HiDreamImageTransformer2DModel",
        TokenFamily(
            (Stack("double_stream_blocks", 0), Stack("single_stream_blocks")),
            "inner_dim", "patch_size", 44, ("pooled",),
        ),
    ),
    "krea2": (
        "ldm.krea2.model.SingleStreamDiT",
        TokenFamily((Stack("blocks", None, "text"),), "first.out_features", "patch", 24),
    ),
    "anima": (
        "ldm.anima.model.Anima",
        TokenFamily((Stack("blocks"),), "model_channels", "patch_spatial", 20),
    ),
    "wan": (
        "ldm.wan.model.WanModel",
        TokenFamily((Stack("blocks", None, "end"),), "dim", "patch_size", 20),
    ),
}  # fmt: skip
"""Family → the host's class, below `comfy`, and what to know of it. The first that fits counts."""


class TokenBackbone:
    """A transformer; see :class:`~nodes.host.backbones.base.HostBackbone`.

    Args:
        model: the host's BaseModel.
        family: one of :data:`FAMILIES`.
    """

    def __init__(self, model: Any, family: str) -> None:
        self._model, self._network, self.family = model, model.diffusion_model, family
        self.network, self._what = self._network, FAMILIES[family][1]
        self.texts = self._what.texts

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels."""
        width = attrgetter(self._what.width)(self._network)
        return {f"block{index}": width for index in range(len(self._places()))}

    @contextmanager
    def tapped(self, tap: str, call: ModelCall, reader: Reader) -> Iterator[ModelCall]:
        """Give the call to run so that its features at a tap go to `reader`.

        Raises:
            ValueError: the latent has several frames, or holds a second picture.
        """
        stack, block = self._places()[int(tap.removeprefix("block"))]
        height, width = self._grid(call)
        text = call.inputs.get("c_crossattn")

        def read(block: nn.Module, inputs: tuple, named: dict[str, Any], output: Any) -> Any:
            stream = output if stack.item is None else output[stack.item]
            tokens = stream.flatten(1, -2)  # some keep the grid: [B, 1, h, w, C]
            options = named.get("transformer_options") or {}
            start = self._start(stack.first, tokens, height * width, text, options)
            end = start + height * width
            grid = rearrange(tokens[:, start:end], "b (h w) c -> b c h w", h=height)
            # The next block may change the stream in place: nobody keeps a view of it.
            changed = rearrange(reader(grid.clone()), "b c h w -> b (h w) c").to(tokens)
            parts = [tokens[:, :start], changed, tokens[:, end:]]
            whole = torch.cat(parts, dim=1).reshape(stream.shape)
            if stack.item is None:
                return _without_graph(whole)
            return _without_graph(
                tuple(whole if n == stack.item else each for n, each in enumerate(output))
            )

        hook = block.register_forward_hook(read, with_kwargs=True)
        try:
            # The host notes in the options which block is at work: let it do so in a copy.
            yield replace(call, options=dict(call.options))
        finally:
            hook.remove()

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """The blocks up to a tap."""
        return [block for _, block in self._places()[: int(tap.removeprefix("block")) + 1]]

    def saved_bytes(
        self, tap: str, shape: Sequence[int], references: Sequence[Sequence[int]] = ()
    ) -> float:
        """By the measured number of activations that a block of the family saves."""
        pictures = shape, *references
        cells = sum(each[-1] * each[-2] for each in pictures) / self._patch() ** 2
        size = (self._model.manual_cast_dtype or self._model.get_dtype()).itemsize
        width = attrgetter(self._what.width)(self._network)
        blocks = int(tap.removeprefix("block")) + 1
        return blocks * (cells + TEXT_TOKENS) * width * max(size, 2) * self._what.saved

    def from_pooled(self, source: str, pooled: torch.Tensor | None) -> torch.Tensor | None:
        """The text vector of a source where the host's pooled output holds it.

        Raises:
            ValueError: CLIP-L is missing: the host puts zeros in its place.
        """
        if source != "pooled" or source not in self._what.texts or pooled is None:
            return None
        text = pooled[..., : self._what.pooled]
        if not text.any():
            raise ValueError(
                f"the adapter compares with what CLIP-L makes of the prompt, and the wired text "
                f"encoders of {self.family} lack it: load clip_l too (TripleCLIPLoader)"
            )
        return text

    def check_text(self, source: str) -> None:
        """Refuse an adapter whose text vector the family has not.

        Raises:
            ValueError: names the sources that it has.
        """
        check_text(self.family, self.texts, source)

    def _places(self) -> list[tuple[Stack, nn.Module]]:
        stacks = self._what.stacks
        return [(stack, each) for stack in stacks for each in getattr(self._network, stack.blocks)]

    def _patch(self) -> int:
        patch = getattr(self._network, self._what.patch)
        return patch if isinstance(patch, int) else patch[-1]

    def _grid(self, call: ModelCall) -> tuple[int, int]:
        """Tokens of a call's picture: rows and columns; odd latents are padded by the host."""
        if call.x.ndim == 5 and call.x.shape[2] != 1:
            raise ValueError(
                f"DPT reads single pictures; the latent has {call.x.shape[2]} frames. Use an empty "
                "latent of length 1"
            )
        if call.inputs.get("image_cond") is not None:
            raise ValueError("DPT does not read HiDream E1: its latent holds a second picture")
        return tuple(-(-side // self._patch()) for side in call.x.shape[-2:])

    def _start(
        self,
        first: str,
        tokens: torch.Tensor,
        count: int,
        text: torch.Tensor | None,
        options: Mapping[str, Any],
    ) -> int:
        """Index of the picture's first token in a stream `[B, L, C]`."""
        if first == "start":
            return 0
        if first == "end":
            name = self._what.multiple
            multiple = getattr(self._network, name) if name else 1
            return tokens.shape[1] - -(-count // multiple) * multiple
        if "img_slice" in options:  # right also where another node adds tokens
            return options["img_slice"][0]
        return text.shape[1]


def family_of(network: nn.Module) -> str | None:
    """The family of a network of the host, None if none reads it.

    Classes that inherit from a family's (pixel-space variants, controls) are others.
    """
    name = f"{type(network).__module__}.{type(network).__name__}".removeprefix("comfy.")
    for family, (host_class, what) in FAMILIES.items():
        if name == host_class and (what.is_one is None or what.is_one(network)):
            return family
    return None


def _without_graph(output: Any) -> Any:
    """Let go of the graph below the tap where a reader has had its gradient."""
    if torch.is_grad_enabled():
        return output
    if isinstance(output, tuple):
        return tuple(_without_graph(each) for each in output)
    return output if output is None else output.detach()
