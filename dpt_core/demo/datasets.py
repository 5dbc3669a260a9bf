"""The shapes world as training data of the demo model."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import Dataset

from ..evaluation.shapes import FINAL, HELD_OUT, TUNING, shapes_source
from ..shapes.caption import CATEGORIES, Caption, hard_negative, imagine, phrase, word
from ..shapes.faults import faulty_picture
from ..shapes.pairs import scene_pair
from ..shapes.scene import CANVAS, compose, render
from ..training.data.examples import GroundingExample, MatchingExample

MEASURED = 504
"""Prompts of each split that figures are measured on."""


def tuning_prompts(count: int) -> list[str]:
    """Different prompts to tune by, none of which figures are measured on."""
    splits = (HELD_OUT, TUNING, FINAL)
    measured = {each.text for split in splits for each in shapes_source(split, MEASURED).prompts}
    found: dict[str, None] = {}
    for index in itertools.count():
        if len(found) == count:
            return list(found)
        rng, category = random.Random(f"reward-prompt-{index}"), CATEGORIES[index % len(CATEGORIES)]
        if (text := word(imagine(rng, category), rng).text) not in measured:
            found[text] = None


class DenoiserExample(NamedTuple):
    """A latent and two captions.

    Attributes:
        latent: `[4, h, w]`, scaled to unit variance.
        caption: what the picture shows.
        wrong: a hard negative.
    """

    latent: torch.Tensor
    caption: str
    wrong: str


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """A picture `[H, W, 3]` uint8 as `[3, H, W]` in [-1, 1]."""
    return rearrange(torch.from_numpy(picture.copy()), "h w c -> c h w").float() / 127.5 - 1


class Captions(Dataset):
    """Captions, each with a hard negative: what the text encoder learns from.

    Args:
        size: how many.
        seed: of the captions.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._seed = size, seed

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> tuple[tuple[str, Caption], tuple[str, Caption]]:
        rng = random.Random(f"captions-{self._seed}-{index}")
        caption = imagine(rng)
        negative = hard_negative(caption, rng)
        return tuple((word(each, rng).text, each) for each in (caption, negative))


class Crops(Dataset[torch.Tensor]):
    """Square crops around things in random scenes: empty background teaches nothing.

    Args:
        size: how many.
        side: of a crop in pixels, a multiple of 16; the whole canvas gives whole pictures.
        seed: of the scenes.
    """

    def __init__(self, size: int, side: int = 64, seed: int = 0) -> None:
        self._size, self._side, self._seed = size, side, seed

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = random.Random(f"crops-{self._seed}-{index}")
        scene = compose(imagine(rng), rng)
        thing, half, most = rng.choice(scene), self._side // 2, CANVAS - self._side
        x, y = (
            min(max(centre + rng.randint(-20, 20) - half, 0), most) for centre in (thing.x, thing.y)
        )
        return to_tensor(render(scene)[y : y + self._side, x : x + self._side])


class PairPictures(Dataset[torch.Tensor]):
    """The pictures of each pair, `[3, 3, 128, 128]` in [-1, 1]: what latents are made of.

    Its scene, the wrong scene, and the scene with a fault.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        pair, rng = scene_pair(self.seed, index), random.Random(f"fault-{self.seed}-{index}")
        pictures = render(pair.scene), render(pair.wrong_scene), faulty_picture(pair.scene, rng)
        return torch.stack([to_tensor(picture) for picture in pictures])


class _PairDataset(Dataset):
    """Pairs with their pictures, or with their latents in place of pictures.

    Args:
        pictures: `[3, C, h, w]` for each pair: a :class:`PairPictures`, or a tensor of latents.
        seed: of the scenes.
    """

    def __init__(self, pictures: Dataset | torch.Tensor, seed: int = 0) -> None:
        self._pictures, self._seed = pictures, seed

    def __len__(self) -> int:
        return len(self._pictures)


class ShapesDenoising(_PairDataset):
    """Pictures with their caption and a wrong one; both scenes of every pair."""

    def __len__(self) -> int:
        return 2 * super().__len__()

    def __getitem__(self, index: int) -> DenoiserExample:
        index, which = divmod(index, 2)
        pair = scene_pair(self._seed, index)
        texts = (pair.text, pair.wrong_text)
        return DenoiserExample(self._pictures[index][which].float(), texts[which], texts[1 - which])


class ShapesMatching(_PairDataset):
    """Matching examples; the random third comes from another pair, the fourth has a fault."""

    def __getitem__(self, index: int) -> MatchingExample:
        rng = random.Random(f"random-{self._seed}-{index}")
        other = (index + rng.randrange(1, len(self))) % len(self)
        pair = scene_pair(self._seed, index)
        own, wrong, faulty = self._pictures[index]
        images = torch.stack((own, wrong, self._pictures[other][0], faulty)).float()
        texts = pair.text, pair.wrong_text, scene_pair(self._seed, other).text
        return MatchingExample(images, texts)


class ShapesGrounding(_PairDataset):
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
