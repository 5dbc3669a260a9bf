"""The host's KSampler, drawing several candidates and finishing the best."""

from typing import Any

import numpy as np
from comfy_api.latest import io

from nodes import common_ksampler  # the host's nodes.py: ours is a relative import away

from ..dpt_core.correction import Correction
from ..dpt_core.plots import drawn, search_curves
from ..dpt_core.search import Search
from ..dpt_core.settings import split_settings
from .correction_inputs import contradiction, correction_inputs, setting_inputs
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.pictures import to_image
from .host.progress import show
from .host.search import Found, search_latents
from .ksampler import sampler_inputs


class SearchKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_SearchKSampler",
            display_name="DPT Search KSampler",
            category="DPT",
            description="KSampler that begins several candidates of every picture, drops the worse "
            "ones early by their alignment score, and finishes the best. DPT KSampler draws the "
            "same picture from the seed that is said.",
            inputs=[
                *(each for each in sampler_inputs() if each.id != "adapter"),
                AdapterIO.Input("adapter", tooltip="The adapter that scores alignment."),
                *correction_inputs(),
                *setting_inputs(Search),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The kept latents: of every picture its best, then its next.",
                ),
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="Their alignment scores in the last step, in the same order.",
                ),
                io.Image.Output(
                    display_name="report",
                    tooltip="Score against step of every candidate, and when it was dropped.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("prompt adherence", "best of n", "seed search", "find a good seed"),
        )

    validate_inputs = classmethod(contradiction)

    @classmethod
    def execute(
        cls,
        model: object,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list,
        negative: list,
        latent_image: dict,
        denoise: float,
        adapter: LoadedAdapter,
        preset: str,
        **settings: Any,
    ) -> io.NodeOutput:
        of_search, of_correction = split_settings(Search, settings)
        search, correction = Search(**of_search), Correction.chosen(preset, **of_correction)

        def draw(model: object, seed: int) -> dict:
            (latent,) = common_ksampler(
                model, seed, steps, cfg, sampler_name, scheduler, positive, negative,
                latent_image, denoise=denoise,
            )  # fmt: skip
            return latent

        node = cls.hidden.unique_id
        found = search_latents(
            model, adapter, correction, search, latent_image, seed, draw,
            lambda line: show(node, line, line),
        )  # fmt: skip
        said = summary(found, search.candidates)
        show(node, said, said.splitlines()[0])
        scores = [each.score for best in found.kept for each in best]
        return io.NodeOutput(found.latent(), scores, to_image(drawn(report, found)))


def summary(found: Found, candidates: int) -> str:
    """What was kept, a line for each picture."""
    if not found.pools:
        return "nothing to draw: the denoise leaves no step"
    lines = []
    for number, best in enumerate(found.kept, start=1):
        image = f"image {number}: " if len(found.kept) > 1 else ""
        kept = ", ".join(f"seed {each.seed}, {each.score:.2f}" for each in best)
        lines.append(f"{image}kept {len(best)} of {candidates * len(found.pools)}: {kept}")
    return "\n".join(lines)


def report(found: Found) -> np.ndarray:
    """A picture of every try, `[T, H, W, 3]` uint8."""
    pictures = []
    for pool, seeds in zip(found.pools, found.seeds, strict=True):
        several = len(pool.alive) > 1
        names = [
            f"image {picture + 1}, seed {seed}" if several else f"seed {seed}"
            for picture in range(len(pool.alive))
            for seed in seeds
        ]
        curves = {step: each.flatten().tolist() for step, each in pool.curves.items()}
        pictures.append(search_curves(curves, pool.dropped.flatten().tolist(), names))
    return np.stack(pictures or [search_curves({}, [], [])])
