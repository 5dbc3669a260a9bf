"""The text vector `y` on its way through the host: attached by DPT_TextEncode, read while sampling.

A CONDITIONING made by DPT_TextEncode carries `dpt_text: {"eos_hidden": [1, D], "pooled": [1, P]}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import comfy.supported_models
import torch

from ...dpt_core.config import AdapterConfig

TEXT_KEY = "dpt_text"
PHRASE = "phrase"
"""Entry of `dpt_text` that holds the words."""


class Target(NamedTuple):
    """What a conditional chunk of the batch should agree with.

    Attributes:
        text: `[1, D]` or `[B, D]` text vector.
        area: the host's area of the chunk (sizes, then offsets, in latent cells), or None.
    """

    text: torch.Tensor
    area: tuple[int, ...] | None


def text_vector(cond: Mapping[str, Any], config: AdapterConfig, model: Any) -> torch.Tensor:
    """Text vector of one conditioning entry, `[B, D]`.

    `pooled_output` stands in for a missing vector where it is the same: on SD 1.x, or for an
    adapter trained on it.

    Args:
        cond: the entry's dictionary.
        config: the adapter's config.
        model: the host's BaseModel.

    Raises:
        ValueError: no usable vector, or one of another width.
    """
    text = cond.get(TEXT_KEY, {}).get(config.text)
    same = config.text == "pooled" or isinstance(model.model_config, comfy.supported_models.SD15)
    if text is None and same:
        text = cond.get("pooled_output")
    if text is None:
        raise ValueError(
            "DPT found no text vector on the positive conditioning: encode the prompt with "
            "DPT_TextEncode instead of CLIPTextEncode"
        )
    if text.shape[-1] != config.text_width:
        raise ValueError(
            f"this adapter expects a text vector of width {config.text_width}, the positive "
            f"conditioning brings {text.shape[-1]}: encode the prompt with the CLIP of the model "
            "family the adapter was trained on"
        )
    return text


def positive_entries(conds: Mapping[str, Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Conditioning entries of a guider that say what should be drawn."""
    return [
        entry
        for name, entries in conds.items()
        if not name.startswith(("negative", "empty"))
        for entry in entries or ()
    ]


class Targets:
    """Which chunks of a batch are conditional, and on what; one per sampling run.

    Args:
        conds: the guider's processed conditioning by name.
        config: the adapter's config.
        model: the host's BaseModel.

    Raises:
        ValueError: see :func:`text_vector`.
    """

    def __init__(self, conds: Mapping[str, list], config: AdapterConfig, model: Any) -> None:
        entries = positive_entries(conds)
        self._texts = {id(entry): text_vector(entry, config, model) for entry in entries}
        self._chunks: dict[tuple[int, Any], Target] = {}

    def register(self, conds: Iterable[Iterable[dict[str, Any]] | None]) -> None:
        """Note under which list index and `uuid` the conditional entries are about to run.

        The host copies a positive entry, `uuid` included, into the negative list where areas must
        match, so an entry counts only by its identity.
        """
        for index, entries in enumerate(conds):
            for entry in entries or ():
                if id(entry) in self._texts:
                    target = Target(self._texts[id(entry)], entry.get("area"))
                    self._chunks[index, entry["uuid"]] = target

    def of(self, index: int, uuid: Any) -> Target | None:
        """The target of a chunk that runs under a list index and `uuid`, None if it has none."""
        return self._chunks.get((index, uuid))
