"""Probing and tuning (Sections 3.2 and 3.3 of arXiv 2403.04321).

Per example six passes of the network share noise and timestep: one with a referring expression for
grounding, five for matching (:data:`~dpt_core.losses.contrastive.PAIRS`); each further wrong image
of an example takes one more. Probing trains the adapter on the frozen network; tuning trains it
together with a LoRA, and the pass of the right pair also denoises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from ..adapter import DiscriminativeAdapter
from ..backbones.base import read_features
from ..boxes import BoxTargets
from ..losses import (
    LossWeights,
    MatchingPairs,
    Phrases,
    probing_losses,
)
from .backbone import LEVELS, Backbone, PhraseEncoder
from .data.examples import GroundingExample, MatchingExample


class Examples(NamedTuple):
    """As many matching as grounding examples."""

    matching: Sequence[MatchingExample]
    grounding: Sequence[GroundingExample]


class AdapterBatch(NamedTuple):
    """What the adapter is trained on, of `B` examples.

    Attributes:
        features: `[6, B, C, h, w]` at the tap, in the passes of
            :data:`~dpt_core.losses.contrastive.PAIRS` and of further wrong images, then with the
            referring expression; without that pass `[5, ...]`, where there are no boxes.
        timesteps: `[B]`.
        texts: `[B, 3 + K, D]` text vectors: own, hard negative, random, and K further negatives,
            which no pass is conditioned on.
        grounding: examples of the last pass, empty where there is none.
    """

    features: torch.Tensor
    timesteps: torch.Tensor
    texts: torch.Tensor
    grounding: Sequence[GroundingExample]


class ProbingTask(nn.Module):
    """The published objective of probing, on features of a frozen network that are there already.

    Args:
        adapter: the adapter, trained.
        phrases: encoder of the referring expressions; None leaves the alignment loss out.
        weights: coefficients of the losses.
    """

    def __init__(
        self,
        adapter: DiscriminativeAdapter,
        phrases: PhraseEncoder | None = None,
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.adapter, self._weights = adapter, weights or LossWeights()
        self._phrases = [phrases]  # in a list: frozen, so no part of the checkpoint
        if phrases is None:  # a distributed wrapper refuses weights that nothing trains
            adapter.contrastive_align_projection_image.requires_grad_(False)
            adapter.contrastive_align_projection_text.requires_grad_(False)

    def forward(
        self, batch: AdapterBatch, denoising: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        timesteps, features = batch.timesteps, batch.features.float()
        matching = features[:-1] if batch.grounding else features
        queries = self.adapter.match(matching.flatten(0, 1), timesteps.repeat(len(matching)))
        found = phrases = targets = None
        if batch.grounding:
            found = self.adapter(features[-1], timesteps)
            phrases, targets = self._targets(batch.grounding, timesteps.device)
        texts = self.adapter.compared(batch.texts)
        pairs = MatchingPairs.from_passes(queries, texts[:, :3])
        others = texts[:, 3:].flatten(0, 1) if texts.shape[1] > 3 else None
        return probing_losses(
            self.adapter, found, targets, pairs, phrases, denoising, self._weights, others
        )

    def _targets(
        self, grounding: Sequence[GroundingExample], device: torch.device
    ) -> tuple[Phrases | None, BoxTargets]:
        boxes = [example.boxes for example in grounding]
        (encoder,) = self._phrases
        if encoder is None:
            named = [torch.ones(len(each), 1, dtype=torch.bool) for each in boxes]
            return None, BoxTargets.join(boxes, named).to(device)
        phrases, named = encoder(grounding)
        return phrases, BoxTargets.join(boxes, named).to(device)


class DiscriminationTask(ProbingTask):
    """The published objective of probing and tuning, the network's passes included.

    Args:
        backbone: the model; its network is trained where its parameters require a gradient.
        adapter, phrases, weights: as in :class:`ProbingTask`.
        denoise: add the denoising loss (tuning).
        latents: the examples hold scaled latents in place of pictures.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: DiscriminativeAdapter,
        phrases: PhraseEncoder | None = None,
        weights: LossWeights | None = None,
        *,
        denoise: bool = False,
        latents: bool = False,
    ) -> None:
        super().__init__(adapter, phrases, weights)
        self.network, self._backbone = backbone.network, backbone
        self._denoise, self._latents = denoise, latents

    def train(self, mode: bool = True) -> DiscriminationTask:
        """Dropout belongs to the adapter; the network stays in eval mode, as published."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, batch: Examples) -> dict[str, torch.Tensor]:
        return super().forward(*self.read(batch))

    def read(self, batch: Examples) -> tuple[AdapterBatch, torch.Tensor | None]:
        """Run the network's passes on fresh noise; in tuning, also give the denoising loss."""
        matching, grounding = batch
        size = len(matching)
        clean = self._clean(matching, grounding)  # [4 + F, B, C, h, w]: own, wrong ones, grounding
        noise = torch.randn_like(clean[0])
        levels = torch.randint(0, LEVELS, (size,), device=clean.device)
        texts = [example.captions[index] for index in range(3) for example in matching]
        texts += [example.caption for example in grounding]
        text = self._backbone.read(texts, clean.shape[-2:], self.adapter.config.text)
        mine, wrong, random, expression = torch.arange(4 * size).chunk(4)
        own, *others = clean
        pictures = torch.cat((own, own, *others))
        asked = (wrong, random, *[mine] * (len(others) - 1), expression)
        contexts, passes = text.select(torch.cat(asked)), len(asked)
        call = self._backbone.noised(
            pictures, noise.repeat(passes, 1, 1, 1), levels.repeat(passes), contexts.inputs
        )
        tap = self.adapter.config.tap
        rest, _ = read_features(self._backbone.model, tap, call)
        call = self._backbone.noised(own, noise, levels, text.select(mine).inputs)
        first, predicted = read_features(self._backbone.model, tap, call, stop=not self._denoise)
        denoising = None
        if self._denoise:
            denoising = self._backbone.denoising_loss(predicted, own, noise, call)
        features = torch.cat((first, rest)).unflatten(0, (1 + passes, size))
        vectors = torch.stack(text.vectors.chunk(4)[:3], dim=1)
        return AdapterBatch(features, levels, vectors, grounding), denoising

    def _clean(
        self, matching: Sequence[MatchingExample], grounding: Sequence[GroundingExample]
    ) -> torch.Tensor:
        pictures = torch.stack([example.images for example in matching], dim=1)
        boxed = torch.stack([example.image for example in grounding])[None]
        pictures = torch.cat((pictures, boxed)).to(self.network.device)
        if self._latents:
            return pictures
        return self._backbone.encode(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])


class Pairs(Dataset):
    """A matching and a grounding example at a time; the shorter data set starts over."""

    def __init__(
        self, matching: Dataset[MatchingExample], grounding: Dataset[GroundingExample]
    ) -> None:
        self.matching, self.grounding = matching, grounding

    def __len__(self) -> int:
        return max(len(self.matching), len(self.grounding))

    def __getitem__(self, index: int) -> tuple[MatchingExample, GroundingExample]:
        return (
            self.matching[index % len(self.matching)],
            self.grounding[index % len(self.grounding)],
        )


def collate(pairs: Sequence[tuple[MatchingExample, GroundingExample]]) -> Examples:
    """A batch of :class:`Pairs`."""
    return Examples(*zip(*pairs, strict=True))


class CachedFeatures(Dataset):
    """Features that were kept, with their grounding examples; see :class:`AdapterBatch`.

    Args:
        kept: `features` `[N, P, C, h, w]`, `timesteps` `[N]` and `texts` `[N, 3, D]`.
        grounding: the data set that example n's grounding is entry n of; it starts over.
    """

    def __init__(
        self, kept: Mapping[str, torch.Tensor], grounding: Dataset[GroundingExample]
    ) -> None:
        self._kept, self._grounding = kept, grounding

    def __len__(self) -> int:
        return len(self._kept["timesteps"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        names = ("features", "timesteps", "texts")
        grounding = self._grounding[index % len(self._grounding)]
        return *(self._kept[name][index] for name in names), grounding


def collate_cached(examples: Sequence[tuple]) -> AdapterBatch:
    """A batch of :class:`CachedFeatures`, or of what is like them; examples may lack grounding."""
    features, timesteps, texts, grounding = zip(*examples, strict=True)
    stacked = torch.stack(features, dim=1), torch.stack(timesteps), torch.stack(texts)
    return AdapterBatch(*stacked, [each for each in grounding if each is not None])
