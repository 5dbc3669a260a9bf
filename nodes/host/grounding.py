"""Boxes of a phrase in finished pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.utils import ProgressBar
from torchvision.ops import clip_boxes_to_image

from ...dpt_core.adapter import AdapterOutput
from ...dpt_core.backbones.base import TapReached
from ...dpt_core.grounding import Grounding, ground
from ...dpt_core.reading import check_reading, noise_draws
from .adapter import LoadedAdapter
from .calls import ModelCall
from .read_once import Reading, encode_pictures, read_once
from .scoring import ApplyModel
from .texts import PHRASE, TEXT_KEY


def find_boxes(
    model: Any,
    adapter: LoadedAdapter,
    vae: Any,
    images: torch.Tensor,
    phrase: list,
    timestep: int,
    seed: int,
) -> list[Grounding]:
    """Ask the grounding queries where a phrase is, one picture after another.

    All pictures get the same noise, so a picture's boxes do not depend on its company.

    Args:
        model: the host's ModelPatcher.
        adapter: the adapter.
        vae: the host's VAE.
        images: `[B, H, W, C]` in [0, 1], of any size.
        phrase: the conditioning; of several entries each finds its own boxes.
        timestep: noise level in [0, 999] at which the adapter reads.
        seed: seed of the noise.

    Returns:
        Per picture `[Q, 4]` and `[Q]`: every query's box, cut to the picture, and its confidence.

    Raises:
        ValueError: the adapter does not fit the model or cannot ground, there is no VAE, or no
            conditioning is active at this timestep.
    """
    check_reading(timestep, draws=1)
    latents = encode_pictures(vae, images)
    return boxes_in(model, adapter, latents, images.shape[1:3], phrase, timestep, seed)


def boxes_in(
    model: Any,
    adapter: LoadedAdapter,
    latents: torch.Tensor,
    size: Sequence[int],
    phrase: list,
    timestep: int,
    seed: int,
) -> list[Grounding]:
    """As :func:`find_boxes`, in latents `[B, C, h, w]` of pictures of a size (height, width)."""
    if not adapter.config.grounding_queries:
        raise ValueError(f"{adapter.name} has no grounding queries: load an adapter that has")
    size = tuple(size)
    scale = torch.tensor(size) / torch.tensor(latents.shape[-2:])  # pixels per latent cell

    def boxes(reading: Reading, executor: ApplyModel, call: ModelCall) -> Grounding:
        """As in training, the phrase is what the model attends to; its vector is not needed."""
        answers: list[AdapterOutput] = []
        told = reading.scorer.noise.level(call.sigma)

        def read(h: torch.Tensor) -> torch.Tensor:
            answers.append(adapter.patcher.model(h.float(), told))
            raise TapReached

        reading.scorer.run_tapped(executor, call, read)
        areas = {entry["uuid"]: entry.get("area") for entry in reading.positive}
        corners = [area[2:] if (area := areas[uuid]) else (0, 0) for uuid in call.options["uuids"]]
        seen = torch.tensor([tuple(call.x.shape[-2:])] * len(corners)) * scale
        logits, found = answers[0].logits.cpu(), answers[0].boxes.cpu()
        return ground(logits, found, seen, torch.tensor(corners) * scale)

    noise, found, bar = noise_draws(latents, 1, seed), [], ProgressBar(len(latents))
    for latent in latents.split(1):
        ((_, parts),) = read_once(model, adapter, phrase, latent, noise, timestep, boxes, bar)
        found.append(_joined(parts, size))
    return found


def phrase_in_words(phrase: list) -> str:
    """What a conditioning was encoded from, "" where it does not say."""
    words = [extra.get(TEXT_KEY, {}).get(PHRASE) for _, extra in phrase]
    return words[0] or "" if len(words) == 1 else ""


def _joined(found: list[Grounding], size: tuple[int, int]) -> Grounding:
    """All boxes of one picture, cut to it: `[Q, 4]` and `[Q]`."""
    boxes = torch.cat([part.boxes.flatten(0, 1) for part in found])
    scores = torch.cat([part.scores.flatten() for part in found])
    return Grounding(clip_boxes_to_image(boxes, size), scores)
