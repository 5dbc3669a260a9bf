"""Pictures and latents of lists and batches, one by one and together again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

Latent = dict[str, Any]
"""The host's LATENT: `samples`, and sometimes `noise_mask`, `batch_index` and others."""


def flat_scores(values: Iterable[Any]) -> list[float]:
    """Scores that come one by one or, from some packs, as a list within the list.

    Raises:
        ValueError: something is no number.
    """
    flat: list[float] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            flat += flat_scores(value)
            continue
        try:
            flat.append(float(value))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"scores must be numbers; got {value!r} among them. Wire the scores output of DPT "
                "Alignment Score"
            ) from error
    return flat


def split_images(batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Batches `[B, H, W, C]` as pictures `[1, H, W, C]`."""
    return [image for batch in batches for image in batch.split(1)]


def join_images(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Pictures as one batch, or singly where their sizes differ."""
    alike = len({image.shape for image in images}) == 1
    return [torch.cat(list(images))] if alike else list(images)


def split_latents(latents: Iterable[Latent]) -> list[Latent]:
    """Latents of one picture each, with its mask and its place in the noise of its batch.

    Raises:
        ValueError: a latent has masks or places in the noise, but not for its pictures.
    """
    return [part for latent in latents for part in _split_latent(latent)]


def _split_latent(latent: Latent) -> list[Latent]:
    samples, mask = latent["samples"], latent.get("noise_mask")
    places = latent.get("batch_index") or range(len(samples))
    if len(places) != len(samples):
        raise ValueError(
            f"the latent's batch_index must have a place for each of its {len(samples)} pictures; "
            f"got {len(places)}. Wire the latent of a sampler or of Latent From Batch"
        )
    if mask is not None and not len(mask):
        raise ValueError("the latent's noise_mask must have a mask; got none. Remove the mask")
    parts = []
    for index, place in enumerate(places):
        part = {**latent, "samples": samples[index : index + 1], "batch_index": [place]}
        if mask is not None:  # a batch of masks that is shorter repeats, as the host has it
            part["noise_mask"] = mask[index % len(mask)][None]
        parts.append(part)
    return parts


def join_latents(parts: Sequence[Latent]) -> list[Latent]:
    """Latents as one batch, or singly where sizes differ. No mask means that all is redrawn."""
    masks = [part["noise_mask"] for part in parts if part.get("noise_mask") is not None]
    shapes = {part["samples"].shape for part in parts}
    if len(shapes) > 1 or len({mask.shape for mask in masks}) > 1:
        return list(parts)
    joined = {
        **parts[0],
        "samples": torch.cat([part["samples"] for part in parts]),
        "batch_index": [place for part in parts for place in part["batch_index"]],
    }
    if masks:
        all_redrawn = torch.ones_like(masks[0])
        found = [part.get("noise_mask") for part in parts]
        joined["noise_mask"] = torch.cat([all_redrawn if m is None else m for m in found])
    return [joined]
