"""Which rows of a model call draw the positive prompt, and what each is pushed to.

A row is known by what it reads: its cross-attention context. Positions and identities do not tell:
tiled samplers order rows by tile, context windows copy the conditioning, and the host copies a
positive entry's `uuid` into the negative list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...dpt_core.config import AdapterConfig
from .calls import ModelCall
from .texts import text_vector

NEGATIVE = ("negative", "empty")
"""Beginnings of the names of a guider's conditionings that say what not to draw."""


@dataclass(frozen=True)
class Target:
    """One entry of the positive conditioning.

    Attributes:
        context: `[1, L, E]` or `[B, L, E]` what its rows attend to, or None for a model without.
        text: `[1, D]` or `[B, D]` what they should agree with.
        area: the host's area of the entry (sizes, then offsets, in latent cells), or None.
        uuid: the host's name of the entry.
    """

    context: torch.Tensor | None
    text: torch.Tensor
    area: tuple[int, ...] | None
    uuid: Any


@dataclass(frozen=True)
class ConditionalRows:
    """The conditional rows of a call.

    Attributes:
        index: `[R]` rows in the call.
        image: `[R]` which picture of the batch a row draws.
        text: `[R, D]` text vectors.
        areas: per row, the area it covers, or None for the whole latent.
    """

    index: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor
    areas: list[tuple[int, ...] | None]


def wanted(conds: Mapping[str, list]) -> list[dict]:
    """The entries of a guider's conditionals that say what to draw."""
    return [
        entry
        for name, entries in conds.items()
        for entry in entries or ()
        if not name.startswith(NEGATIVE)
    ]


class Targets:
    """The positive conditioning of one run.

    Args:
        conds: the guider's processed conditioning by name.
        config: the adapter's config.
        backbone: the model's.

    Raises:
        ValueError: there is no positive conditioning, or see :func:`~nodes.host.texts.text_vector`.
    """

    def __init__(self, conds: Mapping[str, list], config: AdapterConfig, backbone: Any) -> None:
        self._targets: list[Target] = []
        self._others: list[torch.Tensor] = []
        entries = [
            (name.startswith(NEGATIVE), entry)
            for name, each in conds.items()
            for entry in each or ()
        ]
        if all(negative for negative, _ in entries):
            raise ValueError("the positive conditioning is empty: wire one from DPT_TextEncode")
        for negative, entry in entries:
            if negative:
                if (context := _context(entry)) is not None:
                    self._others.append(context)
            elif (text := text_vector(entry, config, backbone)) is not None:
                self._targets.append(
                    Target(_context(entry), text, entry.get("area"), entry.get("uuid"))
                )

    def rows_of(self, call: ModelCall) -> ConditionalRows | None:
        """The rows of a call that draw the positive prompt, None if there are none."""
        size, uuids, device = call.chunk, call.options.get("uuids") or [], call.x.device
        readers = [(target, _readers(target, call)) for target in self._targets]
        pictures = call.pictures
        context = call.inputs.get("c_crossattn")
        doubtful = {row for other in self._others for row in _matches(other, context)}
        found: list[tuple[int, Target, int]] = []
        for row in range(len(call.x)):
            uuid = uuids[row // size] if uuids else None
            hits = [
                (row, target, rows[row])
                for target, rows in readers
                if row in rows and (row not in doubtful or target.uuid == uuid)
            ]
            if hits:
                found.append(next((hit for hit in hits if hit[1].uuid == uuid), hits[0]))
        if not found:
            return None
        rows = torch.tensor([row for row, _, _ in found], device=device)
        return ConditionalRows(
            index=rows,
            image=torch.tensor([pictures[row % size] for row, _, _ in found], device=device),
            text=torch.stack([target.text[which] for _, target, which in found]).to(device),
            areas=[target.area for _, target, _ in found],
        )


def _readers(target: Target, call: ModelCall) -> dict[int, int]:
    """Rows of a call that read a target's context → row of the target's text."""
    context, texts, pictures = call.inputs.get("c_crossattn"), len(target.text), call.pictures
    if target.context is None or context is None:  # the host's name of the chunk must do
        size, uuids = call.chunk, call.options.get("uuids") or []
        named = [row for row in range(len(call.x)) if uuids and uuids[row // size] == target.uuid]
        return {row: pictures[row % size] % texts for row in named}
    rows = _matches(target.context, context)
    one_each = len(target.context) == texts
    return {
        row: which if one_each else pictures[row % call.chunk] % texts
        for row, which in rows.items()
    }


def _context(entry: Mapping[str, Any]) -> torch.Tensor | None:
    """What an entry's rows attend to."""
    held = entry.get("model_conds", {}).get("c_crossattn")
    return None if held is None else held.cond


def _matches(wanted: torch.Tensor, context: torch.Tensor | None) -> dict[int, int]:
    """Rows of a call's context `[N, L', E]` that are rows of `wanted` `[B, L, E]`: row → row.

    The host repeats a context to a common length, so L' may be a multiple of L.
    """
    fits = context is not None and context.shape[2:] == wanted.shape[2:]
    if not fits or context.shape[1] % wanted.shape[1]:
        return {}
    parts = context.unflatten(1, (-1, wanted.shape[1]))  # [N, r, L, E]
    same = torch.stack(
        [(parts == each.to(context)).flatten(1).all(1) for each in wanted], dim=1
    )  # [N, B]
    return {row: int(hits.int().argmax()) for row, hits in enumerate(same.cpu()) if hits.any()}
