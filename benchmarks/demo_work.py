"""Scoring and training with the demo model, against the bare passes they consist of."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.backbones.base import BackboneCall, read_features
from dpt_core.backbones.registry import backbone_of
from dpt_core.demo import model
from dpt_core.demo.datasets import ShapesDenoising, ShapesGrounding, ShapesMatching
from dpt_core.demo.denoiser import DenoiserTask, leaning
from dpt_core.demo.load import load_demo
from dpt_core.diffusers import score_function
from dpt_core.reading import alignment_scores, encode_pictures
from dpt_core.training.backbone import Backbone, PhraseEncoder
from dpt_core.training.discrimination import DiscriminationTask, Pairs, collate

from .timing import Clock, Run

PICTURES = 8
DRAWS = 4


def scoring(device: str) -> dict[str, Run]:
    """Alignment scores of pictures; `plain` is an encoding and a truncated pass per draw."""
    pipeline, adapter = _demo(device)
    pictures = np.random.default_rng(0).integers(0, 256, (PICTURES, 128, 128, 3), np.uint8)
    prompts = ["a red circle left of a blue square"] * PICTURES

    def bare() -> None:
        latents = encode_pictures(pipeline, pictures)
        backbone = backbone_of(pipeline)
        inputs = backbone.conditioning(prompts, latents.shape[-2:])
        text = backbone.text_vectors(prompts)
        score = score_function(backbone, adapter, BackboneCall(latents, 500, inputs), text)
        for _ in range(DRAWS):
            score(latents)

    return {
        "plain": _timed(bare, device),
        "scores": _timed(
            lambda: alignment_scores(pipeline, adapter, pictures, prompts, draws=DRAWS), device
        ),
    }


def denoising(device: str, batch: int = 16) -> dict[str, Run]:
    """A training step of the UNet; `plain` is a bare pass, forward and back, of the same UNet."""
    pipeline, _ = _demo(device)
    backbone = Backbone.of(pipeline)
    unet = pipeline.unet.requires_grad_(True).train()
    data = ShapesDenoising(torch.randn(batch, 2, 4, 16, 16))
    examples = [data[index] for index in range(batch)]
    task = DenoiserTask(backbone, leaning(1.0))
    latents = torch.stack([example.latent for example in examples]).to(device)
    context = backbone.read([example.caption for example in examples]).context
    timesteps = torch.arange(batch, device=device)

    def bare() -> None:
        unet(latents, timesteps, context).sample.square().mean().backward()
        unet.zero_grad()

    def step() -> None:
        task(examples)["denoising"].backward()
        unet.zero_grad()

    return {"plain": _timed(bare, device, False), "denoiser": _timed(step, device, False)}


def probing(device: str, batch: int = 4) -> dict[str, Run]:
    """A step of probing; `plain` is the seven truncated passes of the frozen UNet it needs."""
    pipeline, _ = _demo(device)
    backbone = Backbone.of(pipeline)
    adapter = DiscriminativeAdapter(model.ADAPTER).to(device)
    phrases = PhraseEncoder(backbone.tokenizer, backbone.text_encoder)
    task = DiscriminationTask(backbone, adapter, phrases, denoise=False, latents=True)
    latents = torch.randn(batch + 1, 3, 4, 16, 16)
    pairs = Pairs(ShapesMatching(latents), ShapesGrounding(latents))
    examples = collate([pairs[index] for index in range(batch)])
    noisy = torch.randn(7 * batch, 4, 16, 16, device=device)
    inputs = backbone.read(["a red circle"] * (7 * batch)).inputs
    call = BackboneCall(noisy, torch.full((7 * batch,), 500, device=device), inputs)

    reader = backbone_of(pipeline)

    def bare() -> None:
        with torch.no_grad():
            read_features(reader, adapter.config.tap, call)

    def step() -> None:
        task(examples)["total"].backward()
        adapter.zero_grad()

    return {"plain": _timed(bare, device, False), "probing": _timed(step, device, False)}


def _demo(device: str) -> tuple[Any, Any]:
    from demo_files import demo_folder  # random weights where none ship

    with tempfile.TemporaryDirectory() as spare:
        demo = load_demo(demo_folder(Path(spare)))
    return demo.pipeline.to(device), demo.checkpoint.adapter.to(device)


def _timed(work: Any, device: str, inference: bool = True) -> Run:
    clock = Clock(device)

    def run() -> list[float]:
        with torch.inference_mode(inference), torch.set_grad_enabled(not inference):
            start = clock()
            work()
            return [clock() - start]

    return run
