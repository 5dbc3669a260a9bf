"""What other people's graphs put around a sampler, on tiny models: one chain a node of the host.

A chain has a model, a patch as its node makes it, and a run that ends in latents `[B, 4, h, w]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

import comfy.gligen
import comfy.model_management as management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models as supported
import pytest
import torch
from comfy.controlnet import T2IAdapter
from comfy.t2i_adapter.adapter import Adapter
from comfy_extras import (
    nodes_context_windows,
    nodes_easycache,
    nodes_freelunch,
    nodes_hypertile,
    nodes_model_downscale,
    nodes_pag,
    nodes_perpneg,
    nodes_sag,
    nodes_slg,
    nodes_tomesd,
)
from runs import call, latents, sample
from tiles import tiled
from tiny_models import (
    CLASSES,
    TEXT_WIDTH,
    WIDTH,
    model_patcher,
    narrow,
    randomise,
    tiny_model,
    tiny_text,
    unet_config,
    with_control,
)
from tiny_transformers import OLD

from nodes import (
    ConditioningCombine,
    ConditioningSetArea,
    ConditioningSetMask,
    ConditioningSetTimestepRange,
    KSamplerAdvanced,
)

Patch = Callable[[Any, int], Any]
"""From a model and the batch size to the model that a node patched."""
Sample = Callable[[Any, int], torch.Tensor]
"""From a model and the batch size to what sampling gives."""

STEPS = 3


def plain_run(model: Any, batch: int, **inputs: Any) -> torch.Tensor:
    """The host's KSampler on an empty latent."""
    return sample(model, latent=latents(batch), **{"steps": STEPS, **inputs})


@cache
def plain_model() -> Any:
    """The tiny SD 1.x model; nodes work on clones of it."""
    return tiny_model("sd15")


@dataclass(frozen=True)
class Chain:
    """One thing that people put into a graph.

    Attributes:
        patch: what its node does to the model.
        run: how the graph samples.
        model: the model the graph loads.
        first: our node may also stand before the chain's; both orders are tried.
    """

    patch: Patch = lambda model, batch: model
    run: Sample = plain_run
    model: Callable[[], Any] = plain_model
    first: bool = False


def patched(node: Any, **inputs: Any) -> Patch:
    """The patch of one of the host's nodes."""
    return lambda model, batch: call(node, model=model, **inputs)


def prompted(make: Callable[[], dict[str, Any]], **inputs: Any) -> Sample:
    """A run with conditionings of its own."""
    return lambda model, batch: plain_run(model, batch, **make(), **inputs)


def hypertile(model: Any, batch: int) -> Any:
    """HyperTile, which draws its tiles at random; its node returns a bare tuple."""
    return nodes_hypertile.HyperTile.execute(model, 32, 4, 0, False)[0]


def windows(model: Any, batch: int) -> Any:
    """Context windows shorter than the batch, which overlap."""
    node = nodes_context_windows.ContextWindowsManualNode
    newer = {"freenoise": False} if "freenoise" in signature(node.execute).parameters else {}
    return call(
        node,
        model=model,
        context_length=max(1, batch - 1),
        context_overlap=1 if batch > 2 else 0,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        dim=0,
        **newer,
    )


def areas() -> dict[str, list]:
    """Two areas with a prompt each, and one for the whole picture."""
    area, combine = ConditioningSetArea(), ConditioningCombine()
    (left,) = area.append(tiny_text(1), 64, 128, 0, 0, 1.0)
    (right,) = area.append(tiny_text(3), 64, 128, 64, 0, 1.0)
    return {"positive": combine.combine(combine.combine(left, right)[0], tiny_text(4))[0]}


def masks() -> dict[str, list]:
    """Two masks, the second one with the bounds of its area."""
    mask = torch.zeros(1, 128, 128)
    mask[..., :64] = 1
    (left,) = ConditioningSetMask().append(tiny_text(1), mask, "default", 1.0)
    (right,) = ConditioningSetMask().append(tiny_text(3), 1 - mask, "mask bounds", 1.0)
    return {"positive": ConditioningCombine().combine(left, right)[0]}


def ranges() -> dict[str, list]:
    """One prompt for the first half of sampling, another one for the rest."""
    (early,) = ConditioningSetTimestepRange().set_range(tiny_text(1), 0.0, 0.5)
    (late,) = ConditioningSetTimestepRange().set_range(tiny_text(3), 0.5, 1.0)
    return {"positive": early + late}


def two_stages(model: Any, batch: int) -> torch.Tensor:
    """KSamplerAdvanced for steps 0 to 2 with what noise is left, then 2 to 4."""
    latent = latents(batch)
    for noise, start, end, left in (
        ("enable", 0, 2, "enable"),
        ("disable", 2, 4, "disable"),
    ):
        (latent,) = KSamplerAdvanced().sample(
            *(model, noise, 7, 4, 7.5, "euler", "normal", tiny_text(1), tiny_text(2)),
            *(latent, start, end, left),
        )
    return latent["samples"]


def perp_neg(model: Any, batch: int) -> torch.Tensor:
    """The guider with a third, empty conditioning."""
    guider = call(
        nodes_perpneg.PerpNegGuider,
        model=model,
        positive=tiny_text(1),
        negative=tiny_text(2),
        empty_conditioning=tiny_text(5),
        cfg=7.5,
        neg_scale=1.0,
    )
    return guided(guider, batch)


def guided(guider: Any, batch: int, sampler: Any = None) -> torch.Tensor:
    """What a guider samples."""
    latent = latents(batch)["samples"]
    sampling = guider.model_patcher.get_model_object("model_sampling")
    return guider.sample(
        comfy.sample.prepare_noise(latent, 7),
        latent,
        sampler or comfy.samplers.sampler_object("euler"),
        comfy.samplers.calculate_sigmas(sampling, "normal", STEPS),
        disable_pbar=True,
        seed=7,
    )


@cache
def tiny_gligen() -> comfy.model_patcher.ModelPatcher:
    """The host's GLIGEN for the tiny SD 1.x model, with random weights."""
    widths = [1, 1, 2, 2, 2, 2, 2, *[2] * 6, 1, 1, 1]  # of attention blocks, in order
    blocks = [
        comfy.gligen.GatedSelfAttentionDense(WIDTH * width, TEXT_WIDTH, 8, WIDTH * width // 8)
        for width in widths
    ]
    position = comfy.gligen.PositionNet(TEXT_WIDTH, TEXT_WIDTH)
    model = comfy.gligen.Gligen(blocks, position, TEXT_WIDTH)
    randomise(model, 0)
    for name, gate in model.named_parameters():
        if "alpha" in name:
            gate.fill_(0.5)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(
        model, load_device=management.get_torch_device(), offload_device=device
    )


def boxed() -> dict[str, list]:
    """A prompt with one GLIGEN box, as GLIGENTextBoxApply makes it."""
    ((hidden, extra),) = tiny_text(1)
    box = (tiny_text(3)[0][1]["pooled_output"], 8, 8, 4, 4)
    return {"positive": [[hidden, {**extra, "gligen": ("position", tiny_gligen(), [box])}]]}


@cache
def tiny_t2i() -> Adapter:
    """The host's T2I adapter for the tiny SD 1.x model, with random weights."""
    channels = [WIDTH, 2 * WIDTH, 2 * WIDTH, 2 * WIDTH]
    model = Adapter(channels, 1, 3 * 64, ksize=1, sk=True, use_conv=False, xl=False)
    randomise(model, 0)
    return model


def sketched() -> dict[str, list]:
    """A prompt with a T2I adapter on a random hint."""
    hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    control = T2IAdapter(tiny_t2i(), 3, 8, "nearest-exact").set_cond_hint(hint, 1.0, (0.0, 1.0))
    return {
        "positive": [
            [hidden, {**extra, "control": control, "control_apply_to_uncond": True}]
            for hidden, extra in tiny_text(1)
        ]
    }


def concatenated(channels: int, kind: type = CLASSES["sd15"]) -> Callable[[], Any]:
    """A model whose UNet gets more than the noisy latent."""

    @cache
    def make() -> Any:
        config = unet_config("sd15") | {"in_channels": channels}
        config = narrow("sd15", config) if kind is CLASSES["sd15"] else kind(config)
        model = model_patcher(config)
        randomise(model.model.diffusion_model, 0)
        return model

    return make


def edited() -> dict[str, list]:
    """Prompts with a picture that is edited."""
    image = {"concat_latent_image": latents(1, seed=5)["samples"]}
    return {
        name: [[hidden, extra | image] for hidden, extra in tiny_text(seed)]
        for name, seed in (("positive", 1), ("negative", 2))
    }


def inpainted() -> dict[str, list]:
    """Prompts with a picture and the mask of what is painted anew."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    return {
        name: [[hidden, extra | {"concat_mask": mask}] for hidden, extra in texts]
        for name, texts in edited().items()
    }


def cached(node: Any) -> Patch:
    """A cache that skips most of the steps it may skip."""
    return patched(node, reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False)


def many_steps(model: Any, batch: int) -> torch.Tensor:
    """Enough steps for a cache to skip some."""
    return plain_run(model, batch, steps=6)


SKIPPED = {"double_layers": "0", "single_layers": "0", "start_percent": 0.0, "end_percent": 1.0}

CHAINS = {
    "sag": Chain(patched(nodes_sag.SelfAttentionGuidance, scale=0.5, blur_sigma=2.0), first=True),
    "sag and areas": Chain(
        patched(nodes_sag.SelfAttentionGuidance, scale=0.5, blur_sigma=2.0), prompted(areas)
    ),
    "pag": Chain(patched(nodes_pag.PerturbedAttentionGuidance, scale=3.0)),
    "slg": Chain(patched(nodes_slg.SkipLayerGuidanceDiT, scale=3.0, **SKIPPED)),
    "slg simple": Chain(patched(nodes_slg.SkipLayerGuidanceDiTSimple, **SKIPPED)),
    "freeu": Chain(patched(nodes_freelunch.FreeU_V2, b1=1.3, b2=1.4, s1=0.9, s2=0.2)),
    "deep shrink": Chain(
        patched(
            nodes_model_downscale.PatchModelAddDownscale,
            block_number=3,
            downscale_factor=2.0,
            start_percent=0.0,
            end_percent=0.35,
            downscale_after_skip=True,
            downscale_method="bicubic",
            upscale_method="bicubic",
        )
    ),
    "hypertile": Chain(hypertile),
    "tome": Chain(patched(nodes_tomesd.TomePatchModel, ratio=0.5)),
    "easycache": Chain(cached(nodes_easycache.EasyCacheNode), many_steps, first=True),
    "lazycache": Chain(cached(nodes_easycache.LazyCacheNode), many_steps, first=True),
    "gligen": Chain(run=prompted(boxed)),
    "context windows": Chain(windows, first=True),
    "areas": Chain(run=prompted(areas)),
    "masks": Chain(run=prompted(masks)),
    "timestep ranges": Chain(run=prompted(ranges)),
    "two stages": Chain(run=two_stages),
    "perp neg": Chain(run=perp_neg),
    "control net": Chain(run=prompted(lambda: {"positive": with_control(tiny_text(1))})),
    "t2i adapter": Chain(run=prompted(sketched)),
    "inpainting model": Chain(run=prompted(inpainted), model=concatenated(9)),
    "instruct pix2pix": Chain(
        run=prompted(edited), model=concatenated(8, supported.SD15_instructpix2pix)
    ),
    "tiles, all a call": Chain(tiled(4)),
    "tiles, one a call": Chain(tiled(1)),
    "tiles, the last one narrower": Chain(tiled(4, size=6)),
}
"""By the name a test shows."""

if find_spec("comfy_extras.nodes_nag"):  # newer than 0.3.64
    nag = import_module("comfy_extras.nodes_nag").NAGuidance
    CHAINS["nag"] = Chain(patched(nag, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5), first=True)


def chain_of(name: str) -> Chain:
    """One of :data:`CHAINS`; skips the test where the host has no such node, or one that fails."""
    if name not in CHAINS:
        pytest.skip(f"this ComfyUI has no node for {name}")
    if OLD and name in ("context windows", "easycache"):
        pytest.skip(f"this ComfyUI's own {name} fails for more than one picture")
    return CHAINS[name]
