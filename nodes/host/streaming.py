"""Layers whose weights may be gone between forward and backward.

Weights that do not fit the device are streamed through buffers that the next layer overwrites. Such
a layer takes its own copy of the cast weights, in forward and again in backward; between the two no
weight is kept, so memory holds one layer's weights at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
from torch import nn
from torch.nn import functional

_layers = comfy.ops.disable_weight_init

Compute = Callable[..., torch.Tensor]
"""What a layer computes from itself, its input, its weight and its bias."""

_conv = (_layers.Conv1d, _layers.Conv2d, _layers.Conv3d)

STREAMABLE: dict[type[nn.Module] | tuple[type[nn.Module], ...], Compute] = {
    _conv: lambda layer, x, weight, bias: layer._conv_forward(x, weight, bias),
    _layers.GroupNorm: lambda layer, x, weight, bias: functional.group_norm(
        x, layer.num_groups, weight, bias, layer.eps
    ),
    _layers.LayerNorm: lambda layer, x, weight, bias: functional.layer_norm(
        x, layer.normalized_shape, weight, bias, layer.eps
    ),
    _layers.RMSNorm: lambda layer, x, weight, bias: functional.rms_norm(
        x, layer.normalized_shape, weight, layer.eps
    ),
}
"""Host layers whose weights may be streamed, and what they compute from weight and bias.

Linear layers have a way of their own. Embeddings need none: no gradient passes them, so nothing of
theirs is kept for the way back.
"""


def streamed(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The forward to use in a gradient pass for a layer that may be streamed, cast or quantised.

    None for any other module: its own forward serves.
    """
    if not isinstance(module, comfy.ops.CastWeightBiasOp) or hasattr(module, "scale_weight"):
        return None
    weight = getattr(module, "weight", None)
    if weight is None or not (
        module.comfy_cast_weights or module.weight_function or not is_plain(weight)
    ):
        return None
    if hasattr(module, "in_features"):
        return lambda x: _forward(module, x, FrozenLinear, module)
    compute = next((f for kind, f in STREAMABLE.items() if isinstance(module, kind)), None)
    return compute and (lambda x: _forward(module, x, StreamedLayer, module, compute))


def is_plain(tensor: torch.Tensor | None) -> bool:
    """Whether a weight is an ordinary tensor, neither quantised nor missing."""
    return type(tensor) in (torch.Tensor, nn.Parameter)


def _forward(
    module: nn.Module, x: torch.Tensor, function: type[torch.autograd.Function], *args: Any
) -> torch.Tensor:
    weight = module.weight
    resident = is_plain(weight) and weight.device == x.device and weight.dtype == x.dtype
    if resident and not hasattr(module, "_v") and not module.weight_function:
        return type(module).forward(module, x)
    return function.apply(x, *args)


class FrozenLinear(torch.autograd.Function):
    """A linear layer that keeps nothing: the way back needs its weight only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: nn.Module) -> torch.Tensor:
        ctx.module = module
        return functional.linear(_prescaled(module, x), *_cast(module, x))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        with torch.inference_mode(False), torch.no_grad():
            weight, _ = _cast(ctx.module, gradient)
            return _prescaled(ctx.module, gradient @ weight), None


def _prescaled(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`x` times the scale that some quantised layers put before their weight."""
    scale = getattr(module, "pre_quant_scale", None)
    return x if scale is None else x * scale.to(x)


class StreamedLayer(torch.autograd.Function):
    """Any other layer: its input is kept, and the layer computed again on the way back."""

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
    return (tensor.clone() if is_plain(tensor) else tensor.dequantize()).to(x.dtype)
