"""The demo's text encoder: captions that say the same get the same vector.

CLIP learns from pictures; in the shapes world what a picture shows is known, so the encoder is
trained against that: the contrastive loss of CLIP (arXiv 2103.00020) between the hidden state at
the end-of-text token and an embedding of the caption's meaning, hard negatives in the batch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from ..shapes.caption import COLOURS, OPPOSITES, SHAPES, SIZES, Caption, Mention

MENTION_WIDTH = 4 + len(COLOURS) + len(SHAPES) + len(SIZES) + 1


class Meaning(NamedTuple):
    """What captions say, as numbers.

    Attributes:
        mentions: `[B, 4, M]` one-hot count, colour, shape and size of each mention, zero where
            there is none. With a relation, the leftmost or uppermost one comes first.
        relation: `[B, 3]` one-hot: none, left, above.
    """

    mentions: torch.Tensor
    relation: torch.Tensor


def meaning(captions: list[Caption]) -> Meaning:
    """Captions as numbers; two that say the same, whatever the wording, give the same sums."""
    mentions = torch.zeros(len(captions), 4, MENTION_WIDTH)
    kinds = []
    for row, caption in enumerate(captions):
        relation, order = caption.relation, caption.mentions
        if relation in ("right", "below"):
            relation, order = OPPOSITES[relation], order[::-1]
        kinds.append((None, "left", "above").index(relation))
        for index, mention in enumerate(order):
            mentions[row, index] = _numbers(mention)
    return Meaning(mentions, one_hot(torch.tensor(kinds), 3).float())


def _numbers(mention: Mention) -> torch.Tensor:
    size = len(SIZES) if mention.size is None else SIZES.index(mention.size)
    choices = (
        (mention.count - 1, 4),
        (COLOURS.index(mention.colour), len(COLOURS)),
        (SHAPES.index(mention.shape), len(SHAPES)),
        (size, len(SIZES) + 1),
    )
    return torch.cat([one_hot(torch.tensor(index), of).float() for index, of in choices])


class MeaningEncoder(nn.Module):
    """From :class:`Meaning` to `[B, width]`; order matters only under a relation."""

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.mention = _mlp(MENTION_WIDTH, hidden, hidden)
        self.pair = _mlp(2 * MENTION_WIDTH + 3, hidden, hidden)
        self.whole = _mlp(2 * hidden, hidden, width)

    def forward(self, meaning: Meaning) -> torch.Tensor:
        mentions, relation = meaning
        there = mentions.amax(dim=2, keepdim=True)  # [B, 4, 1]
        together = (self.mention(mentions) * there).sum(1)
        pair = self.pair(torch.cat((mentions[:, 0], mentions[:, 1], relation), dim=1))
        pair = pair * (1 - relation[:, :1])
        return self.whole(torch.cat((together, pair), dim=1))


def _mlp(into: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(into, hidden), nn.GELU(), nn.Linear(hidden, out))


class TextTask(nn.Module):
    """Contrastive training of a text encoder on meanings.

    Args:
        tokenizer, encoder: CLIP's, see :mod:`dpt_core.demo.model`.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder
        self.meaning = MeaningEncoder(encoder.config.hidden_size)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, batch: list) -> dict[str, torch.Tensor]:
        texts, captions = zip(*(pair for pairs in batch for pair in pairs), strict=True)
        numbers = meaning(list(captions))
        vectors = normalize(self.text_vectors(list(texts)), dim=1)
        meanings = normalize(self.meaning(numbers), dim=1)
        logits = vectors @ meanings.T * self.logit_scale.clamp(max=math.log(100)).exp()
        facts = torch.cat((numbers.relation, numbers.mentions.flatten(1)), dim=1)
        same = (facts[:, None] == facts[None]).all(dim=2)
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, -1e4)  # the same meaning twice is no negative
        target = torch.arange(len(logits))
        return {"text": (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2}

    def text_vectors(self, texts: list[str]) -> torch.Tensor:
        """Hidden states at the end-of-text token, `[B, D]`."""
        ids = self.tokenizer(texts, padding=True, return_tensors="pt").input_ids
        hidden = self.encoder(ids).last_hidden_state
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        return hidden[torch.arange(len(ids)), ends]
