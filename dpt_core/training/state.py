"""What a training run keeps to go on: one file, complete or not at all, in which nothing runs.

`checkpoint.safetensors` holds `weights.*` (what is trained, and buffers; frozen weights are in the
model that the run starts from), `optimizer.<index>.*`, `average.<index>` and `losses.*` (one number
a step), and as JSON in its metadata the step, the run's settings and the small numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..files import write_json, write_tensors

FACTS_KEY = "dpt_run"

FREE = ("save_every", "workers")
"""Settings that may change while a run goes on."""

Row = dict[str, float]
"""A step with its losses."""


class RunError(ValueError):
    """A run cannot go on from what its folder holds; the message says what would help."""


class RunState:
    """The parts of a run that change, and how they go to a file and back.

    Args:
        task: the module that is trained.
        optimizer: of its parameters that require a gradient.
        scaler: of the gradients in float16, or None.
        average: diffusers' `EMAModel` of the same parameters, or None.
    """

    def __init__(
        self, task: nn.Module, optimizer: Any, scaler: Any = None, average: Any = None
    ) -> None:
        self._task, self._optimizer = task, optimizer
        self._scaler, self._average = scaler, average

    def save(self, path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
        """Write all of it, with the losses so far and the settings they came from.

        Raises:
            OSError: it cannot be written; what was there stays.
        """
        tensors = {f"weights.{key}": value for key, value in self._weights().items()}
        for index, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        if self._average is not None:
            shadows = enumerate(self._average.shadow_params)
            tensors |= {f"average.{index}": shadow for index, shadow in shadows}
        for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
            values = [row.get(name, math.nan) for row in rows]
            tensors[f"losses.{name}"] = torch.tensor(values, dtype=torch.float64)
        facts = {
            "step": len(rows),
            "settings": settings,
            "rates": [group["lr"] for group in self._optimizer.param_groups],
            "scaler": self._scaler.state_dict() if self._scaler is not None else None,
            "averaged": self._average.optimization_step if self._average is not None else None,
        }
        copies = {key: value.detach().cpu().clone() for key, value in tensors.items()}  # untied
        write_tensors(path, copies, {FACTS_KEY: json.dumps(facts)})

    def load(self, path: Path, settings: Mapping[str, Any]) -> list[Row]:
        """Take up what :meth:`save` wrote; returns the losses so far.

        Raises:
            RunError: the file is damaged, or of a run with other settings or another model.
        """
        remedy = f"Delete {path} to start the run anew, or take another folder"
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})[FACTS_KEY])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            check_settings(path.parent, facts["settings"], settings)
            self._fill(facts, tensors)
            return _rows(facts["step"], _part("losses.", tensors))
        except RunError:
            raise
        except (SafetensorError, OSError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({error}). {remedy}") from error
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            said = f"{path} is not what this run would write ({error})"
            raise RunError(f"{said}. {remedy}") from error

    def _weights(self) -> dict[str, torch.Tensor]:
        frozen = {name for name, value in self._task.named_parameters() if not value.requires_grad}
        return {key: each for key, each in self._task.state_dict().items() if key not in frozen}

    def _fill(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        weights, ours = _part("weights.", tensors), self._weights()
        both = ours, weights
        for key in [*ours, *weights]:
            here, there = (list(side[key].shape) if key in side else None for side in both)
            if here != there:
                raise ValueError(f"{key} has the shape {there} there and {here} in this model")
        trained = [each for group in self._optimizer.param_groups for each in group["params"]]
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _part("optimizer.", tensors).items():
            index, name = key.split(".")
            if value.ndim and value.shape != trained[int(index)].shape:
                raise ValueError(f"optimizer.{key} has the shape {list(value.shape)}")
            entries.setdefault(int(index), {})[name] = value
        fresh = self._optimizer.state_dict()
        for group, rate in zip(fresh["param_groups"], facts["rates"], strict=True):
            group["lr"] = float(rate)
        self._task.load_state_dict(weights, strict=False)
        self._optimizer.load_state_dict(fresh | {"state": entries})
        if self._scaler is not None:
            self._scaler.load_state_dict(facts["scaler"])
        if self._average is not None:
            self._average.optimization_step = int(facts["averaged"])
            for index, shadow in enumerate(self._average.shadow_params):
                shadow.copy_(tensors[f"average.{index}"])


def read_losses(path: Path) -> list[Row]:
    """The losses by step in a run's file; none where there is no file.

    Raises:
        RunError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        with safe_open(path, "pt") as file:
            step = json.loads((file.metadata() or {})[FACTS_KEY])["step"]
            names = [key for key in file.keys() if key.startswith("losses.")]
            return _rows(step, _part("losses.", {key: file.get_tensor(key) for key in names}))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Delete it to start the run anew"
        ) from error


def check_settings(
    folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any], free: Sequence[str] = FREE
) -> None:
    """Make sure that a folder's run is this one.

    Raises:
        RunError: settings differ; each is named with both values.
    """
    changed = [
        f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} now"
        for key in dict.fromkeys([*ours, *theirs])
        if key not in free and theirs.get(key) != ours.get(key)
    ]
    if changed:
        raise RunError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}): take the same to go "
            "on with it, or another folder"
        )


def settle(
    path: Path, settings: Mapping[str, Any], remedy: str, free: Sequence[str] = FREE
) -> None:
    """Write a run's settings, or check them against those that are there.

    Args:
        path: the file in the run's folder.
        settings: JSON values by name.
        remedy: what to do about a file that cannot be read.
        free: names of settings that may change.

    Raises:
        RunError: the file has others, or cannot be read.
    """
    if path.exists():
        try:
            theirs = dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise RunError(
                f"{path} cannot be read as the settings of a run ({error}). {remedy}"
            ) from error
        check_settings(path.parent, theirs, settings, free)
    write_json(path, settings)


def _part(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _rows(step: int, losses: Mapping[str, torch.Tensor]) -> list[Row]:
    columns = {name: values.tolist() for name, values in losses.items()}
    if any(len(values) != step for values in columns.values()):
        raise ValueError(f"expected losses of {step} steps")
    return [
        {"step": index + 1}
        | {name: each[index] for name, each in columns.items() if not math.isnan(each[index])}
        for index in range(step)
    ]
