"""Settings as node inputs; they follow from :class:`dpt_core.Correction` and the like."""

from __future__ import annotations

from dataclasses import Field, asdict, fields
from typing import Any

from comfy_api.latest import io

from ..dpt_core.correction import CUSTOM, PRESETS, Correction

PLAIN = "plain"
"""No correction; the score is read all the same."""


def correction_inputs(*others: str, about: str = "") -> list[io.Input]:
    """The preset, then every setting, in the order of their declaration.

    Args:
        others: presets that only this node has.
        about: what they do.
    """
    preset = io.Combo.Input(
        "preset",
        options=[*PRESETS, *others, CUSTOM],
        default=next(iter(PRESETS)),
        tooltip="balanced: strength 50, lagged, in the first half of the steps; the one to begin "
        "with. fast: in the first 60%, with a gradient at every second step. published: as in the "
        f"paper. {about}custom: the settings below appear, and count.",
    )
    # For the front end; not every host takes it as an argument.
    preset.extra_dict["dpt_presets"] = {name: asdict(each) for name, each in PRESETS.items()}
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
    if preset in (None, PLAIN) or None in given.values():
        return True
    try:
        Correction.chosen(preset, **given)
    except ValueError as error:
        return str(error)
    return True


def setting_inputs(settings: type, **shared: Any) -> list[io.Input]:
    """An input for every field of a dataclass that is a setting, in the order of declaration.

    Args:
        settings: the dataclass.
        shared: arguments of all inputs; by default they are optional, for a prompt over the API
            need not repeat what a preset says.
    """
    shared = shared or {"optional": True}
    return [_input(each, shared) for each in fields(settings) if each.metadata]


def _input(setting: Field, shared: dict[str, Any]) -> io.Input:
    about = setting.metadata
    shared = {**shared, "default": setting.default, "tooltip": about["help"]}
    if choices := about.get("choices"):
        return io.Combo.Input(setting.name, options=list(choices), **shared)
    if isinstance(setting.default, str):
        return io.String.Input(setting.name, **shared)
    shared |= {"min": about["minimum"], "max": about["maximum"]}
    if isinstance(setting.default, int):
        if setting.name == "seed":  # which the front end would change: another seed, another run
            shared["control_after_generate"] = False
        return io.Int.Input(setting.name, **shared)
    return io.Float.Input(setting.name, step=about["step"], **shared)
