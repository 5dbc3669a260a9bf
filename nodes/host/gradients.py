"""Gradients through the host's models.

The host runs nodes under `torch.inference_mode()`, so its weights are inference tensors, which
autograd refuses; weights that do not fit the device are streamed (:mod:`.streaming`), which would
give a wrong gradient without an error; some operations have no backward pass, others change in
place what it needs. Inside `differentiable` all of this is taken care of, and nothing that others
can see has changed afterwards.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from .streaming import is_plain, streamed

try:
    from comfy_kitchen.backends import eager as fused
except ImportError:  # ComfyUI before them
    fused = None
try:
    from comfy.weight_adapter.bypass import BypassForwardHook
except ImportError:  # ComfyUI before bypass LoRA
    BypassForwardHook = ()


FUSED = "torch._ops.comfy_kitchen"
"""Where the host's fused operations live."""

INPLACE_ADD = 13
"""Argument of the instruction BINARY_OP for `+=`."""


class WeightViews:
    """Autograd-capable views of inference tensors: same storage, made once per run."""

    def __init__(self) -> None:
        self._views: dict[tuple[nn.Module, str], tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The view of a module's parameter or buffer; a replaced weight gets a new one."""
        original, view = self._views.get((module, name), (None, None))
        if original is not tensor:
            view = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
            )
            if isinstance(tensor, nn.Parameter):
                view = nn.Parameter(view, requires_grad=False)
            self._views[module, name] = tensor, view
        return view


@contextmanager
def differentiable(views: WeightViews, *models: nn.Module) -> Iterator[None]:
    """Let autograd run through models whose weights the host loaded.

    Args:
        views: the run's cache.
        models: modules that take part in the forward and backward pass inside the context.
    """
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(_plain_operations())
        undo.enter_context(Differentiable())
        for module in (module for model in models for module in model.modules()):
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if is_plain(tensor) and (tensor.is_inference() or tensor.requires_grad):
                        undo.callback(tensors.__setitem__, name, tensor)
                        tensors[name] = views.of(module, name, tensor)
            _route(module, undo)
        yield


@contextmanager
def mutation_allowed() -> Iterator[None]:
    """What is kept for the way back may be changed in place by other nodes' patches.

    torch knows what it keeps by the object's address, and lets go of a tensor once it was changed:
    another one at that address would be taken for it. So those live until the context ends.
    """
    with torch.autograd.graph.allow_mutation_on_saved_tensors() as context:
        context.original = _Staying()
        yield


class _Staying(WeakKeyDictionary):
    """Values that are deleted stay alive as long as this."""

    def __init__(self) -> None:
        super().__init__()
        self._deleted: list[torch.Tensor] = []

    def __delitem__(self, key: Any) -> None:
        self._deleted.append(self[key])
        super().__delitem__(key)


@contextmanager
def _plain_operations() -> Iterator[None]:
    """The host's fused rotations and norms have no backward pass; in training it takes plain ones.

    The switch is the whole host's: it goes back whatever happens.
    """
    before = getattr(management, "in_training", None)
    if before is None:  # ComfyUI before the fused ones
        yield
        return
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before


class Differentiable(TorchFunctionMode):
    """Takes the operations that autograd cannot pass, or that spoil what it keeps, another way.

    `x += y` makes a new tensor. `x.add_(y)` may throw away what it returns, so that one stays in
    place; torch calls both by one name, and only the caller's instruction tells them apart.

    Fused norms and rotations that the host uses in training too become plain ones.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is torch.Tensor.add_ and _is_augmented(sys._getframe(1)):
            return torch.add(*args, **kwargs)
        if getattr(func, "__module__", None) == FUSED and "rope" in func.__name__:
            plain = getattr(fused, func.__name__)
            # Scales of norms are weights, and may be gone on the way back.
            kept = [
                each.clone() if torch.is_tensor(each) and each.ndim == 1 else each for each in args
            ]
            return plain(*kept, **kwargs)
        return func(*args, **kwargs)


def _is_augmented(caller: FrameType) -> bool:
    """Whether a function is at `x += y`."""
    code, at = caller.f_code.co_code, caller.f_lasti
    name = dis.opname[code[at]]
    return name == "INPLACE_ADD" or (name == "BINARY_OP" and code[at + 1] == INPLACE_ADD)


def _route(module: nn.Module, undo: ExitStack) -> None:
    """Protect a layer whose weights may be streamed; `undo` takes the protection off again.

    A LoRA in bypass mode sits around the layer's own forward, which it holds, and brings weights.
    """
    owner, name = module, "forward"
    while isinstance(hook := getattr(vars(owner).get(name), "__self__", None), BypassForwardHook):
        owner, name = hook, "original_forward"
        held = getattr(hook.adapter, "weights", None)
        if isinstance(held, (tuple, list)):
            undo.callback(setattr, hook.adapter, "weights", held)
            hook.adapter.weights = usable(held)
    if owner is module and name in vars(module):  # someone else's forward
        return
    if (forward := streamed(module)) is None:
        return
    if owner is module:
        undo.callback(delattr, module, name)
    else:
        undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, forward)


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Keep only what goes into each block, and compute the block again on the way back.

    Takes less memory, for one more forward pass to the tap.
    """
    blocks = [block for block in blocks if "forward" not in vars(block)]
    try:
        for block in blocks:
            block.forward = partial(_recompute, block)
        yield
    finally:
        for block in blocks:
            del block.forward


def _recompute(block: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
    if options := kwargs.get("transformer_options"):
        kwargs["transformer_options"] = dict(options)  # the host changes it from block to block

    def forward(*args: Any, **kwargs: Any) -> Any:
        with Differentiable():  # modes hold for one thread; the way back may run in another
            return type(block).forward(block, *args, **kwargs)

    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


@contextmanager
def no_dead_ends(model: nn.Module) -> Iterator[None]:
    """Refuse a forward pass in which some layer loses the gradient.

    Such a layer would not stop the backward pass: its neighbours' residual connections carry on,
    and the gradient would be wrong without an error.

    Raises:
        ValueError: names the layer.
    """
    leaves = (module for module in model.modules() if next(module.children(), None) is None)
    hooks = [module.register_forward_hook(_check_differentiable) for module in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_differentiable(module: nn.Module, inputs: tuple, output: Any) -> None:
    if not torch.is_grad_enabled():  # behind the tap, where inputs from before it still have one
        return
    if not torch.is_tensor(output) or output.requires_grad:
        return
    # Embeddings of positions see the latent for its size only, and give something of another form.
    if any(
        torch.is_tensor(x) and x.requires_grad and (x.ndim, len(x)) == (output.ndim, len(output))
        for x in inputs
    ):
        raise not_differentiable(f"its {type(module).__name__} layers have no gradient")


def not_differentiable(why: str) -> ValueError:
    """The error for a model whose layers autograd cannot pass."""
    return ValueError(
        f"DPT cannot differentiate this model: {why}. Load it unquantised, with "
        "CheckpointLoaderSimple or UNETLoader, in place of the node that quantised it"
    )


def attention_override(function: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Attention for gradient passes: exact and fused, whatever the host was started with.

    SageAttention and FlashAttention as the host calls them have no backward pass.
    """
    return attention_pytorch(*args, **kwargs)


def usable(value: Any) -> Any:
    """Copy of nested inputs in which no tensor is an inference tensor.

    Call it outside inference mode.
    """
    if torch.is_tensor(value):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: usable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(usable(item) for item in value)
    return value
