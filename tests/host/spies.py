"""What a corrected run does, seen from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.patcher_extension import WrappersMP

Pair = tuple[torch.Tensor, torch.Tensor]

TOKEN = 5
"""The text vector of `tiny_text` is what the UNet attends to at this token."""


@contextmanager
def texts_watched(model: Any) -> Iterator[list[Pair]]:
    """Note for every scored pass the texts its rows attend to `[N, D]` and those scored `[R, D]`.

    Args:
        model: whose UNet runs.
    """
    pairs: list[Pair] = []
    attended = torch.empty(0)

    def attend(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal attended
        attended = args[0][:, TOKEN].detach().clone()

    def score(queries: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        pairs.append((attended, text.detach().clone()))
        return plain(queries, text)

    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("dpt_pack.nodes") and hasattr(module, "alignment_score")
        and callable(module.alignment_score)
    ]  # fmt: skip
    plain = sys.modules["dpt_pack.dpt_core.score"].alignment_score
    unet = model.model.diffusion_model
    blocks = (part for part in unet.modules() if isinstance(part, BasicTransformerBlock))
    hook = next(blocks).attn2.to_k.register_forward_pre_hook(attend)
    with ExitStack() as stack:
        stack.callback(hook.remove)
        for module in modules:
            stack.enter_context(patch.object(module, "alignment_score", score))
        yield pairs


def check_texts(pairs: list[Pair]) -> None:
    """Every scored row is scored with the text that it attends to."""
    assert pairs, "nothing was scored"
    for attended, scored in pairs:
        wanted = [row for row in attended if any(torch.equal(row, text) for text in scored)]
        assert len(wanted) == len(scored), "a row is scored with a text it does not attend to"
        assert torch.equal(torch.stack(wanted), scored), "rows are scored with each other's texts"


class InputSpy:
    """Notes what other nodes hand to the model, and what the UNet then gets, pass by pass.

    Attributes:
        moves: per pass which of its rows are none that was handed over `[N]`, and the texts they
            attend to `[N, D]`.
    """

    def __init__(self) -> None:
        self.moves: list[Pair] = []

    def watch(self, model: Any) -> Any:
        """A model to which a correction is still to be added."""
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", self._outside)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", self._inside)
        self._sampling = model.get_model_object("model_sampling")
        return model

    def _outside(self, run: Any, x: torch.Tensor, sigma: torch.Tensor, *args, **kwargs) -> Any:
        self._given = self._sampling.calculate_input(sigma, x)
        return run(x, sigma, *args, **kwargs)

    def _inside(self, run: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        context = args[1] if len(args) > 1 else kwargs["context"]
        away = (x[:, None] - self._given[None]).detach().flatten(2).abs().amax(2)  # [N, given]
        self.moves.append((away.amin(1) > 1e-6, context[:, TOKEN].clone()))
        return run(x, *args, **kwargs)
