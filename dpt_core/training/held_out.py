"""How good an adapter is, on examples that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ..adapter import DiscriminativeAdapter
from ..grounding import ground
from ..losses.contrastive import PAIRS
from ..score import alignment_score
from .features import TEXTS, Example
from .tap_trial import parted

AT_ONCE = 32
"""Examples that the adapter reads together."""


class Figures(NamedTuple):
    """What was found; shares in [0, 1].

    Attributes:
        itm: how often the right text scores above the hard negative text.
        itm_images: how often the right picture scores above the hard negative picture.
        auc: the chance that a right pair scores above a hard negative one, of whatever example.
    """

    itm: float
    itm_images: float
    auc: float


@torch.no_grad()
def scores(
    adapter: DiscriminativeAdapter, kept: Sequence[Mapping[str, torch.Tensor]]
) -> torch.Tensor:
    """Scores of the passes of :data:`~dpt_core.losses.contrastive.PAIRS`, `[N, 5]` on the CPU.

    Args:
        adapter: the adapter, in eval mode.
        kept: see :func:`~dpt_core.training.features.keep`.
    """
    device, found = adapter.logit_scale.device, []
    for shard in kept:
        for rows in torch.arange(len(shard["levels"])).split(AT_ONCE):
            features = shard["features"][rows, : len(PAIRS)].to(device).float()
            levels = shard["levels"][rows].to(device).repeat_interleave(len(PAIRS))
            texts = adapter.compared(shard["texts"][rows][:, list(TEXTS)].to(device))
            queries = adapter.match(features.flatten(0, 1), levels)
            found.append(alignment_score(queries, texts.flatten(0, 1)).view(len(rows), -1).cpu())
    return torch.cat(found)


def figures(found: torch.Tensor) -> Figures:
    """Of scores `[N, 5]`; a tie is wrong."""
    own, hard_text, _, hard_image, _ = found.T
    return Figures(
        float((own > hard_text).float().mean()),
        float((own > hard_image).float().mean()),
        parted(own, torch.cat((hard_text, hard_image))),
    )


def best(history: Sequence[Mapping[str, float]], every: int, last: int) -> Mapping[str, float]:
    """The row of the weights to keep: the highest AUC; empty where there is none.

    Args:
        history: figures by step.
        every: steps between a run's own checkpoints. Those where it was stopped do not count: it
            would end otherwise than one that was not.
        last: its last step.
    """
    regular = [row for row in history if row["step"] % every == 0 or row["step"] == last]
    return max(regular, key=lambda row: row["auc"], default={})


class Found(NamedTuple):
    """What the adapter finds for a phrase.

    Attributes:
        picture: its name.
        phrase: what was asked for.
        true: `[n, 4]` (cx, cy, w, h) in [0, 1] of what it names.
        box: `[4]` corners in [0, 1] of the surest box.
        confidence: of it.
    """

    picture: str
    phrase: str
    true: torch.Tensor
    box: torch.Tensor
    confidence: float


@torch.no_grad()
def find(
    adapter: DiscriminativeAdapter,
    kept: Sequence[Mapping[str, torch.Tensor]],
    examples: Sequence[Example],
) -> list[Found]:
    """The surest box in the grounding pass of some examples, the first ones of the first shard."""
    if not examples or not adapter.config.grounding_queries:
        return []
    device, count = adapter.logit_scale.device, len(examples)
    features, levels = (kept[0][name][:count].to(device) for name in ("features", "levels"))
    answer = adapter(features[:, len(PAIRS)].float(), levels)
    boxes, sure = ground(answer.logits, answer.boxes, torch.ones(count, 2, device=device))
    best = sure.argmax(1)
    return [
        Found(
            example.boxed,
            example.grounding.caption,
            example.grounding.boxes,
            boxes[row, best[row]].cpu(),
            float(sure[row, best[row]]),
        )
        for row, example in enumerate(examples)
    ]
