"""Boxes of a phrase in finished pictures, through the host's own sampling machinery."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import comfy.samplers
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from comfy.utils import ProgressBar, common_upscale
from torchvision.ops import clip_boxes_to_image

from ...dpt_core.adapter import AdapterOutput
from ...dpt_core.backbones.base import TapReached
from ...dpt_core.grounding import Grounding, ground
from .adapter import LoadedAdapter
from .rows import ModelCall
from .texts import PHRASE, TEXT_KEY
from .unet import check_backbone, tapped

KEY = "dpt_ground"


class GroundingPass(comfy.samplers.Sampler):
    """A "sampler" that noises one picture to a timestep and asks the grounding queries once.

    As in training, the phrase is what the UNet attends to; its text vector is not needed.

    Args:
        adapter: the adapter.
        size: (height, width) of the picture in pixels.

    Attributes:
        found: `[R, Q]` boxes after a run, R being the conditioning's chunks, in pixels of the
            picture.
    """

    def __init__(self, adapter: LoadedAdapter, size: tuple[int, int]) -> None:
        self._adapter = adapter
        self._size = torch.tensor(size)
        self.found: list[Grounding] = []

    def sample(
        self,
        model_wrap: Any,
        sigmas: torch.Tensor,
        extra_args: dict,
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: Any = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        self._model = model_wrap.inner_model
        phrase = model_wrap.conds["positive"]
        self._areas = {entry["uuid"]: entry.get("area") for entry in phrase}
        self._cells = torch.tensor(latent_image.shape[-2:])
        self.found = []
        x = self._model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
        options = extra_args["model_options"]
        comfy.samplers.calc_cond_batch(self._model, [phrase], x, sigmas[:1], options)
        return latent_image

    def apply_model(
        self,
        executor: Any,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Around the model call: read the boxes; nothing above the tap is computed."""
        adapter, options = self._adapter.patcher.model, transformer_options or {}
        timesteps = self._model.model_sampling.timestep(sigma).float()
        answers: list[AdapterOutput] = []

        def read(h: torch.Tensor) -> torch.Tensor:
            answers.append(adapter(h.float(), timesteps))
            raise TapReached

        unet, tap = self._model.diffusion_model, self._adapter.config.tap
        with tapped(unet, tap, options, control, read) as (tapping, control), suppress(TapReached):
            inputs |= {"c_concat": c_concat, "c_crossattn": c_crossattn, "control": control}
            ModelCall(x, sigma, tapping, inputs).run(executor)
        areas = [self._areas[uuid] for uuid in options["uuids"]]
        self.found.append(self._in_pixels(answers[0], x.shape[-2:], areas))
        return torch.zeros_like(x)

    def _in_pixels(
        self, answer: AdapterOutput, cells: torch.Size, areas: list[tuple[int, ...] | None]
    ) -> Grounding:
        """The answers of a call's chunks, each of which saw the whole picture or an area of it."""
        corners = [area[2:] if area else (0, 0) for area in areas]
        scale = self._size / self._cells  # pixels per latent cell
        sizes = torch.tensor([tuple(cells)] * len(areas)) * scale
        origins = torch.tensor(corners) * scale
        return ground(answer.logits.cpu(), answer.boxes.cpu(), sizes, origins)


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
    check_backbone(model, adapter.config)
    if not adapter.config.grounding_queries:
        raise ValueError(f"{adapter.name} has no grounding queries: load an adapter that has")
    if vae is None:
        raise ValueError("vae is missing: the checkpoint has none; load one with VAELoader")
    size = tuple(images.shape[1:3])
    latents = vae.encode(whole_cells(images[..., :3], vae.spacial_compression_encode()))
    noise = torch.randn(latents[:1].shape, generator=torch.Generator().manual_seed(seed))
    asked = GroundingPass(adapter, size)
    guider = _guider(model, adapter, asked, phrase)
    sigma = guider.model_patcher.get_model_object("model_sampling").sigma(torch.tensor([timestep]))
    sigmas, progress, found = torch.cat((sigma, torch.zeros(1))), ProgressBar(len(latents)), []
    for latent in latents.split(1):
        throw_exception_if_processing_interrupted()
        guider.sample(noise.to(latent), latent, asked, sigmas, seed=seed)
        found.append(_joined(asked.found, size))
        progress.update(1)
    return found


def whole_cells(images: torch.Tensor, cell: int) -> torch.Tensor:
    """Pictures `[B, H, W, C]`, stretched where a side is no multiple of a latent's cell.

    The host's VAE would cut the edges off instead.
    """
    size = images.shape[1:3]
    height, width = (max(1, round(side / cell)) * cell for side in size)
    if (height, width) == tuple(size):
        return images
    stretched = common_upscale(images.movedim(-1, 1), width, height, "bilinear", "disabled")
    return stretched.movedim(1, -1)


def phrase_in_words(phrase: list) -> str:
    """What a conditioning was encoded from, "" where it does not say."""
    words = [extra.get(TEXT_KEY, {}).get(PHRASE) for _, extra in phrase]
    return words[0] or "" if len(words) == 1 else ""


def _guider(
    model: Any, adapter: LoadedAdapter, asked: GroundingPass, phrase: list
) -> comfy.samplers.CFGGuider:
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, asked.apply_model)
    model.set_additional_models(KEY, [adapter.patcher])
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": phrase})
    return guider


def _joined(found: list[Grounding], size: tuple[int, int]) -> Grounding:
    """All boxes of one picture, cut to it: `[Q, 4]` and `[Q]`."""
    if not found:
        raise ValueError(
            "no conditioning is active at this timestep: choose another one, or remove "
            "ConditioningSetTimestepRange"
        )
    boxes = torch.cat([part.boxes.flatten(0, 1) for part in found])
    scores = torch.cat([part.scores.flatten() for part in found])
    return Grounding(clip_boxes_to_image(boxes, size), scores)
