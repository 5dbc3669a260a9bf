"""Settings as node inputs; they follow from :class:`dpt_core.Correction` and the like."""

from __future__ import annotations

from dataclasses import Field, asdict, fields
from typing import Any

from comfy_api.latest import io

from ..dpt_core.correction import CUSTOM, PRESETS, Correction


def correction_inputs() -> list[io.Input]:
    """The preset, then every setting, in the order of their declaration."""
    preset = io.Combo.Input(
        "preset",
        options=[*PRESETS, CUSTOM],
        default=next(iter(PRESETS)),
        tooltip="balanced: strength 40, lagged, in the first 60% of the steps; the one to begin "
        "with. fast: the same in the first 30%. published: as in the paper. custom: the settings "
        "below appear, and count.",
        extra_dict={"dpt_presets": {name: asdict(each) for name, each in PRESETS.items()}},
    )
    return [preset, *setting_inputs(Correction)]


def contradiction(
    cls: type,
    preset: str,
    start_percent: float | None = Correction.start_percent,
    end_percent: float | None = Correction.end_percent,
    mode: str | None = Correction.mode,
    inner_steps: int | None = Correction.inner_steps,
) -> bool | str:
    """A node's `validate_inputs`: True, or what is wrong with the settings, before anything runs.

    The host gives what was typed. What comes over a wire is None, and is checked when it is there.
    """
    given = {"start_percent": start_percent, "end_percent": end_percent, "mode": mode,
             "inner_steps": inner_steps}  # fmt: skip
    if preset is None or None in given.values():
        return True
    try:
        Correction.chosen(preset, **given)
    except ValueError as error:
        return str(error)
    return True


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
