"""The shapes world as training data: pairs of scenes that differ in one thing."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import Dataset

from ..training.base.denoiser import DenoiserExample
from ..training.data.examples import GroundingExample, MatchingExample
from .caption import Caption, hard_negative, imagine, phrase, word
from .scene import Scene, compose, render


class ScenePair(NamedTuple):
    """A scene and a hard negative of it, each with its caption in words."""

    caption: Caption
    text: str
    scene: Scene
    wrong_text: str
    wrong_scene: Scene


def scene_pair(seed: int, index: int) -> ScenePair:
    """Pair `index` of the world with that seed."""
    rng = random.Random(f"scenes-{seed}-{index}")
    caption = imagine(rng)
    wrong = hard_negative(caption, rng)
    texts = [word(each, rng).text for each in (caption, wrong)]
    scenes = [compose(each, rng) for each in (caption, wrong)]
    return ScenePair(caption, texts[0], scenes[0], texts[1], scenes[1])


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """A picture `[H, W, 3]` uint8 as `[3, H, W]` in [-1, 1]."""
    return rearrange(torch.from_numpy(picture.copy()), "h w c -> c h w").float() / 127.5 - 1


class Scenes(Dataset[torch.Tensor]):
    """Both pictures of each pair, `[2, 3, 128, 128]` in [-1, 1]: what latents are made of."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        pair = scene_pair(self.seed, index)
        return torch.stack([to_tensor(render(scene)) for scene in (pair.scene, pair.wrong_scene)])


class _World(Dataset):
    """Pairs with their pictures, or with their latents in place of pictures.

    Args:
        pictures: `[2, C, h, w]` for each pair: a :class:`Scenes`, or a tensor of latents.
        seed: of the scenes.
    """

    def __init__(self, pictures: Dataset | torch.Tensor, seed: int = 0) -> None:
        self._pictures, self._seed = pictures, seed

    def __len__(self) -> int:
        return len(self._pictures)


class ShapesDenoising(_World):
    """Pictures with their caption and a wrong one; both scenes of every pair."""

    def __len__(self) -> int:
        return 2 * super().__len__()

    def __getitem__(self, index: int) -> DenoiserExample:
        index, which = divmod(index, 2)
        pair = scene_pair(self._seed, index)
        texts = (pair.text, pair.wrong_text)
        return DenoiserExample(self._pictures[index][which].float(), texts[which], texts[1 - which])


class ShapesMatching(_World):
    """Matching examples; the random third comes from another pair."""

    def __getitem__(self, index: int) -> MatchingExample:
        rng = random.Random(f"random-{self._seed}-{index}")
        other = (index + rng.randrange(1, len(self))) % len(self)
        pair = scene_pair(self._seed, index)
        images = torch.cat((self._pictures[index], self._pictures[other][:1])).float()
        texts = pair.text, pair.wrong_text, scene_pair(self._seed, other).text
        return MatchingExample(images, texts)


class ShapesGrounding(_World):
    """A phrase of each scene's caption with the boxes of all things that it names."""

    def __getitem__(self, index: int) -> GroundingExample:
        rng = random.Random(f"phrase-{self._seed}-{index}")
        pair = scene_pair(self._seed, index)
        mention = rng.choice(pair.caption.mentions)
        text = phrase(mention, rng)
        boxes = [
            thing.box
            for thing in pair.scene
            if (thing.colour, thing.shape) == (mention.colour, mention.shape)
        ]
        spans = (((0, len(text)),),) * len(boxes)
        return GroundingExample(self._pictures[index][0].float(), text, torch.tensor(boxes), spans)
