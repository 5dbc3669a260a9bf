"""Settings that nodes, commands and documents declare by reading them: fields of a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any


def setting(default: Any, help: str, **limits: Any) -> Any:
    """A field of a dataclass of settings: its default, what it means, and what it may be.

    Args:
        default: of the field, and of every node, command and document.
        help: for a tooltip or `--help`.
        limits: `minimum`, `maximum` and a widget's `step` for numbers, `choices` for words.
    """
    return field(default=default, metadata={"help": help, **limits})


def check_settings(settings: Any) -> None:
    """Check every field of a dataclass of settings that says what it may be.

    Raises:
        ValueError: a value is none of its choices, no number, or out of range.
    """
    for each in fields(settings):
        _check(each.name, getattr(settings, each.name), each.metadata)


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is no number, or out of range; whole numbers are wanted where `low` is one.

    Raises:
        ValueError: it is.
    """
    kinds, wanted = (int, "whole number") if isinstance(low, int) else ((int, float), "number")
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        ends = (str(end) if isinstance(end, int) else f"{end:g}" for end in (low, high))
        raise ValueError(f"{name} must be a {wanted} from {' to '.join(ends)}; got {value!r}")


def split_settings(
    kind: type, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name: those that are fields of a dataclass, and the others."""
    names = {each.name for each in fields(kind)}
    own = {name: value for name, value in settings.items() if name in names}
    return own, {name: value for name, value in settings.items() if name not in names}


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if choices := limits.get("choices"):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        return
    if "minimum" not in limits:
        return
    check_number(name, value, limits["minimum"], limits["maximum"])
