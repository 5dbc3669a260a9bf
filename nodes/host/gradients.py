"""Gradients through the host's models.

The host runs nodes under `torch.inference_mode()`, so its weights are inference tensors, which
autograd refuses; and weights that do not fit the device are streamed through buffers that the next
layer overwrites, which would give a wrong gradient without an error. Inside `differentiable` both
are taken care of, and nothing that others can see has changed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_layers = comfy.ops.disable_weight_init

Compute = Callable[..., torch.Tensor]
"""What a layer computes from itself, its input, its weight and its bias."""


def _linear(
    layer: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    scale = getattr(layer, "pre_quant_scale", None)  # of quantised layers
    return functional.linear(x if scale is None else x * scale.to(x), weight, bias)


STREAMABLE: dict[type[nn.Module], Compute] = {
    _layers.Conv2d: lambda layer, x, weight, bias: layer._conv_forward(x, weight, bias),
    _layers.GroupNorm: lambda layer, x, weight, bias: functional.group_norm(
        x, layer.num_groups, weight, bias, layer.eps
    ),
    _layers.LayerNorm: lambda layer, x, weight, bias: functional.layer_norm(
        x, layer.normalized_shape, weight, bias, layer.eps
    ),
}
"""Host layers whose weights may be streamed, and what they compute from weight and bias."""


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
    swapped: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    routed: list[nn.Module] = []
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for module in (module for model in models for module in model.modules()):
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        if _is_plain(tensor) and (tensor.is_inference() or tensor.requires_grad):
                            swapped.append((tensors, name, tensor))
                            tensors[name] = views.of(module, name, tensor)
                if (compute := _computation(module)) and "forward" not in vars(module):
                    module.forward = partial(_forward, module, compute)
                    routed.append(module)
            yield
        finally:
            for module in routed:
                del module.forward
            for tensors, name, tensor in swapped:
                tensors[name] = tensor


def _is_plain(tensor: torch.Tensor | None) -> bool:
    return type(tensor) in (torch.Tensor, nn.Parameter)


def _computation(module: nn.Module) -> Compute | None:
    """What a layer computes if its weights may be streamed, cast or quantised, else None."""
    if not isinstance(module, comfy.ops.CastWeightBiasOp) or hasattr(module, "scale_weight"):
        return None
    weight = getattr(module, "weight", None)
    if weight is None or not (
        module.comfy_cast_weights or module.weight_function or not _is_plain(weight)
    ):
        return None
    if hasattr(module, "in_features"):
        return _linear
    return next((f for kind, f in STREAMABLE.items() if isinstance(module, kind)), None)


def _forward(module: nn.Module, compute: Compute, x: torch.Tensor) -> torch.Tensor:
    weight = module.weight
    resident = _is_plain(weight) and weight.device == x.device and weight.dtype == x.dtype
    if resident and not hasattr(module, "_v") and not module.weight_function:
        return type(module).forward(module, x)
    return StreamedLayer.apply(x, module, compute)


class StreamedLayer(torch.autograd.Function):
    """One layer that takes its own copy of the cast weights, in forward and again in backward.

    Between the two passes no weight is kept, so memory holds one layer's weights at a time and
    none can be overwritten before it is used.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: nn.Module, compute: Compute) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.layer = module, compute
        return compute(module, x, *_cast(module, x))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        module, compute = ctx.layer
        with torch.inference_mode(False), torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = compute(module, x, *_cast(module, x))
            (gradient,) = torch.autograd.grad(y, x, gradient)
        return gradient, None, None


@torch.no_grad()
def _cast(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor | None]:
    """Weight and bias as the host would use them for `x`, LoRA patches included, copied."""
    if not hasattr(comfy.ops, "uncast_bias_weight"):  # ComfyUI before asynchronous offloading
        return [_copy(tensor, x) for tensor in comfy.ops.cast_bias_weight(module, x)]
    weight, bias, stream = comfy.ops.cast_bias_weight(module, x, offloadable=True)
    copies = [_copy(weight, x), _copy(bias, x)]
    comfy.ops.uncast_bias_weight(module, weight, bias, stream)
    return copies


def _copy(tensor: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    if tensor is None:
        return None
    return (tensor.clone() if _is_plain(tensor) else tensor.dequantize()).to(x.dtype)


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
    forward = partial(type(block).forward, block)
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
    wanted = any(torch.is_tensor(x) and x.requires_grad for x in inputs)
    if wanted and torch.is_tensor(output) and not output.requires_grad:
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
