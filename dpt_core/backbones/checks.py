"""Whether an adapter fits a network, and where it reads one unless told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..config import AdapterConfig
from .base import Backbone


def default_tap(taps: Mapping[str, int]) -> str:
    """Where an adapter reads a network unless told.

    The paper's up1 of a UNet; a transformer's block at a third of its depth, where the content
    stands and little of the pass is needed.
    """
    if "up1" in taps:
        return "up1"
    return list(taps)[max(0, round(len(taps) / 3) - 1)]


def check_taps(taps: Mapping[str, int], tap: str, channels: int) -> None:
    """Check that an adapter can read a network.

    Args:
        taps: of the network; see :meth:`Backbone.taps`.
        tap, channels: what the adapter expects.

    Raises:
        ValueError: the tap is missing or has another width.
    """
    if tap not in taps:
        raise ValueError(
            f"this adapter reads the tap {tap!r}, the model has {', '.join(taps)}: load an adapter "
            "that was trained on this model's family"
        )
    if taps[tap] != channels:
        raise ValueError(
            f"this adapter expects {channels} channels at tap {tap}, the model has {taps[tap]}: "
            "load an adapter that was trained on this model's family"
        )


def check_family(family: str, wanted: str) -> None:
    """Check that a network is of the family that an adapter was trained on.

    Raises:
        ValueError: it is of another one.
    """
    if family != wanted:
        raise ValueError(
            f"this adapter was trained on a model of family {wanted}, the model is of family "
            f"{family}: load an adapter for {family}, or the model that the adapter belongs to"
        )


def check_text(family: str, sources: Sequence[str], source: str) -> None:
    """Check that a family has the text vector that an adapter was trained on.

    Raises:
        ValueError: it has others only.
    """
    if source not in sources:
        raise ValueError(
            f"this adapter compares with the text vector {source!r}; the text encoders of {family} "
            f"give {' or '.join(sources)}: load an adapter that was trained on {family}"
        )


def check_adapter(backbone: Backbone, config: AdapterConfig) -> None:
    """Check that an adapter reads a network, and has a text vector of its family.

    Raises:
        ValueError: family, tap, width or text vector differ.
    """
    check_family(backbone.family, config.family)
    check_taps(backbone.taps(), config.tap, config.in_channels)
    check_text(backbone.family, backbone.texts, config.text)


def check_resident(module: nn.Module) -> None:
    """Check that weights are where they were on the way back, too.

    Raises:
        ValueError: accelerate or diffusers moves them in and out layer by layer, so that a gradient
            would be wrong or fail.
    """
    for part in module.modules():
        hook, registry = (getattr(part, name, None) for name in ("_hf_hook", "_diffusers_hook"))
        hooks = getattr(hook, "hooks", (hook,))
        layerwise = any(getattr(each, "offload", False) for each in hooks)
        if layerwise or "group_offloading" in getattr(registry, "hooks", {}):
            raise ValueError(
                f"self-correction needs the weights of {type(module).__name__} to stay until the "
                "gradient is there: take enable_model_cpu_offload in place of sequential or group "
                "offloading"
            )
