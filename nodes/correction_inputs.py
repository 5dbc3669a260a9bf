"""Settings as node inputs; they follow from :class:`dpt_core.Correction` and the like."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from comfy_api.latest import io

from ..dpt_core.correction import CUSTOM, PRESETS, Correction


def correction_inputs() -> list[io.Input]:
    """The preset, then every setting, in the order of their declaration."""
    preset = io.Combo.Input(
        "preset",
        options=[*PRESETS, CUSTOM],
        default=next(iter(PRESETS)),
        tooltip="balanced and fast correct the steps where it pays most, published does what the "
        "paper does; the settings below count under custom only.",
    )
    return [preset, *setting_inputs(Correction)]


def setting_inputs(settings: type) -> list[io.Input]:
    """An input for every field of a dataclass of settings, in the order of their declaration."""
    return [_input(each) for each in fields(settings)]


def _input(setting: Field) -> io.Input:
    about = setting.metadata
    shared: dict[str, Any] = {
        "default": setting.default,
        "tooltip": about["help"],
        "optional": True,  # a prompt over the API need not repeat what a preset says
    }
    if choices := about.get("choices"):
        return io.Combo.Input(setting.name, options=list(choices), **shared)
    shared |= {"min": about["minimum"], "max": about["maximum"]}
    if isinstance(setting.default, int):
        return io.Int.Input(setting.name, **shared)
    return io.Float.Input(setting.name, step=about["step"], **shared)
