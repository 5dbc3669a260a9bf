"""Transformers as diffusers describes them, their operations, and steps at a small depth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from dpt_core import PRESETS, diffusers
from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backbones.base import Backbone, BackboneCall, TapReached, read_features
from dpt_core.backbones.registry import backbone_of
from dpt_core.config import AdapterConfig
from dpt_core.evaluation.cost import count_operations

from .timing import Clock, Run


@dataclass(frozen=True)
class Transformer:
    """A published transformer.

    Attributes:
        kind: diffusers' class.
        config: what it is built from; what is not said is the class's default.
        layers: names of the config's numbers of blocks.
        text: tokens of text, and their width.
        taps: after so many blocks the adapter reads; the first one is ours.
    """

    kind: str
    config: dict[str, Any]
    layers: tuple[str, ...]
    text: tuple[int, int]
    taps: tuple[int, ...]


def _sd3(blocks: int, both: int, **more: Any) -> Transformer:
    config = {
        "num_layers": blocks, "num_attention_heads": more.pop("heads"), "attention_head_dim": 64,
        "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "in_channels": 16,
        "out_channels": 16, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(both)),
        **more,
    }  # fmt: skip
    config["caption_projection_dim"] = 64 * config["num_attention_heads"]
    taps = round(blocks / 3), blocks // 4, blocks // 2
    return Transformer("SD3Transformer2DModel", config, ("num_layers",), (333, 4096), taps)


TRANSFORMERS = {
    "sd35-medium": _sd3(24, 13, heads=24, pos_embed_max_size=384),
    "sd35-large": _sd3(38, 0, heads=38, pos_embed_max_size=192),
    "flux": Transformer(
        "FluxTransformer2DModel", {"guidance_embeds": True}, ("num_layers", "num_single_layers"),
        (512, 4096), (19, 14, 28),
    ),
    "qwen-image": Transformer(
        "QwenImageTransformer2DModel", {}, ("num_layers",), (128, 3584), (20, 15, 30)
    ),
    "z-image": Transformer("ZImageTransformer2DModel", {}, ("n_layers",), (128, 2560), (10, 8, 15)),
}  # fmt: skip
"""By name."""


@dataclass(frozen=True)
class Shares:
    """Operations for a tap, as shares of a pass of one row.

    Attributes:
        tap: its name.
        blocks: how many there are up to it, and in all.
        forward: to the tap.
        backward: back from it.
    """

    tap: str
    blocks: tuple[int, int]
    forward: float
    backward: float

    def steps(self, rows: int) -> tuple[float, float]:
        """A corrected step over a plain one of 1 row, or with guidance 2: exact, lagged."""
        return 1 + (self.forward + self.backward) / rows, 1 + self.backward / rows


def network_of(name: str, depth: int | None = None, device: str = "meta") -> Any:
    """A transformer without storage, or with random weights.

    Args:
        name: of :data:`TRANSFORMERS`.
        depth: blocks of each kind; by default all.
        device: of the weights, float32.
    """
    import diffusers as library

    what = TRANSFORMERS[name]
    config = dict(what.config)
    if depth:
        config |= {each: depth for each in what.layers}
    if depth and config.get("dual_attention_layers"):
        config["dual_attention_layers"] = tuple(range(depth))
    with torch.device(device):
        return getattr(library, what.kind)(**config).requires_grad_(False).eval()


def call_of(name: str, network: Any, side: int, rows: int = 1) -> tuple[Backbone, BackboneCall]:
    """The backbone of a transformer, and a call with random inputs.

    Args:
        name: of :data:`TRANSFORMERS`.
        network: :func:`network_of` it.
        side: of the latent.
        rows: of the call.
    """
    scheduler = _scheduler()
    backbone = backbone_of(SimpleNamespace(transformer=network, scheduler=scheduler))
    device, (tokens, width) = network.device, TRANSFORMERS[name].text
    half = side // 2
    text = torch.randn(rows, tokens, width, device=device)
    pooled = torch.randn(rows, network.config.get("pooled_projection_dim", 1), device=device)
    inputs = {
        "sd3": {"encoder_hidden_states": text, "pooled_projections": pooled},
        "flux": {
            "encoder_hidden_states": text, "pooled_projections": pooled,
            "guidance": torch.full((rows,), 3.5, device=device),
            "txt_ids": torch.zeros(1, tokens, 3, device=device),
            "img_ids": _positions(half).to(device)[None],
        },
        "qwen_image": {
            "encoder_hidden_states": text, "encoder_hidden_states_mask": None,
            "img_shapes": [[(1, half, half)]],
        },
        "z_image": {"texts": text, "lengths": torch.full((rows,), tokens)},
    }[backbone.family]  # fmt: skip
    x = backbone.packed(torch.randn(rows, 16, side, side, device=device))
    if network.device.type == "meta":  # positions without storage do not tell
        backbone.grid = lambda call: (half, half)
    return backbone, BackboneCall(x, torch.full((rows,), 500.0, device=device), inputs)


def shares(name: str, side: int) -> list[Shares]:
    """Count operations of a transformer without storage, for each of its taps.

    Args:
        name: of :data:`TRANSFORMERS`.
        side: of the latent.
    """
    backbone, call = call_of(name, network_of(name), side)
    return [_share(backbone, call, f"block{blocks - 1}") for blocks in TRANSFORMERS[name].taps]


def _share(backbone: Backbone, call: BackboneCall, tap: str) -> Shares:
    def whole() -> None:
        with torch.no_grad():
            backbone.run(backbone.module, call)

    def to_tap(back: bool) -> None:
        leaf = call.x.clone().requires_grad_()
        features, _ = read_features(backbone, tap, call.at(leaf, call.sigma))
        if back:
            torch.autograd.grad(features.sum(), leaf)

    plain = count_operations(whole)
    forward = count_operations(lambda: to_tap(False))
    backward = count_operations(lambda: to_tap(True)) - forward
    names = list(backbone.taps())
    blocks = names.index(tap) + 1, len(names)
    return Shares(tap, blocks, forward / plain, backward / plain)


def build(name: str, device: str, depth: int, side: int) -> tuple[dict[str, Run], Shares]:
    """Steps of one row at a small depth, read at the middle, and their operations.

    Args:
        name: of :data:`TRANSFORMERS`.
        device: of the network, float32 on a CPU and bfloat16 elsewhere.
        depth: blocks of each kind.
        side: of the latent.
    """
    torch.manual_seed(0)
    network = network_of(name, depth, device)
    network = network if device == "cpu" else network.to(torch.bfloat16)
    backbone, call = call_of(name, network, side)
    inputs = {key: _as(value, network.dtype) for key, value in call.inputs.items()}
    call = BackboneCall(call.x.to(network.dtype), call.sigma, inputs)
    names = list(backbone.taps())
    tap, width = names[len(names) // 2 - 1], backbone.width()
    config = AdapterConfig(
        in_channels=width, text_width=768, family=backbone.family, tap=tap, text=backbone.texts[0]
    )
    adapter = DiscriminativeAdapter(config).requires_grad_(False).eval().to(device)
    text, clock = torch.randn(1, config.text_width, device=device), Clock(device)
    pipeline = SimpleNamespace(
        transformer=network, scheduler=_scheduler(), do_classifier_free_guidance=False
    )
    calls = [_given(backbone, call, level) for level in (500.0, 480.0)]

    def run(mode: str | None) -> Callable[[], list[float]]:
        def timed() -> list[float]:
            correcting = nullcontext()
            if mode:
                wanted = replace(PRESETS["balanced"], mode=mode, end_percent=1.0)
                correcting = diffusers.self_correcting(pipeline, adapter, text, wanted)
            with torch.no_grad(), correcting:
                network(**calls[0])  # lagged goes on from the step before
                start = clock()
                network(**calls[1])
                return [clock() - start]

        return timed

    counted, empty = call_of(name, network_of(name, depth), side)
    runs = {"plain": run(None), "exact": run("exact"), "lagged": run("lagged")}
    return runs, _share(counted, empty, tap)


def _given(backbone: Backbone, call: BackboneCall, level: float) -> dict[str, Any]:
    """Arguments of the network at a noise level."""
    seen: list[dict[str, Any]] = []

    def forward(**given: Any) -> Any:
        seen.append(given)
        raise TapReached

    with suppress(TapReached):
        backbone.run(forward, call.at(call.x, torch.full_like(call.sigma, level)))
    return seen[0]


def _as(value: Any, dtype: torch.dtype) -> Any:
    floating = torch.is_tensor(value) and value.is_floating_point()
    return value.to(dtype) if floating else value


def _positions(side: int) -> torch.Tensor:
    rows = torch.arange(side)
    return torch.cartesian_prod(torch.zeros(1, dtype=torch.long), rows, rows).float()


def _scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()
