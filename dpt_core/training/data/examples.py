"""What the training consumes: examples for image-text matching and for grounding."""

from __future__ import annotations

from typing import NamedTuple

import torch


class DataError(ValueError):
    """Training data cannot be used; the message names the file and the line or JSON entry."""


class MatchingExample(NamedTuple):
    """Three images or more and three texts for image-text matching (ITM).

    Attributes:
        images: positive, hard negative and random image, `[3, 3, H, W]` in [-1, 1], float32; with
            precomputed latents `[3, C, h, w]`. Further wrong ones may follow.
        captions: texts in the same order. Only the first caption belongs to the first image; the
            other two texts are drawn for themselves and need not describe the other two images.
    """

    images: torch.Tensor
    captions: tuple[str, str, str]


class GroundingExample(NamedTuple):
    """An image, a text and the boxes that parts of the text name, for grounding (REC).

    Attributes:
        image: `[3, H, W]` in [-1, 1], float32; with precomputed latents `[C, h, w]`.
        caption: the text.
        boxes: `[n, 4]`, (cx, cy, w, h) as parts of the image's sides, in [0, 1], float32; n ≥ 1.
        spans: for each box, the character spans (start, end) of the caption that name it.
    """

    image: torch.Tensor
    caption: str
    boxes: torch.Tensor
    spans: tuple[tuple[tuple[int, int], ...], ...]
