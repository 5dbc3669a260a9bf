"""Steps of self-correcting sampling in a real ComfyUI, through its own sampler."""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from .sizes import UNETS, adapter_config
from .timing import Clock, Run

ROOT = Path(__file__).resolve().parent.parent
STEPS = 3
"""Steps of a run; the first is not counted, for the host prepares models there."""


def enter(device: str) -> None:
    """Start the host in this process, once."""
    if "dpt_pack" not in sys.modules:
        sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]
        from comfy_process import enter_host, load_pack

        enter_host(cpu=device == "cpu")
        load_pack()


def build(name: str, device: str, dtype: torch.dtype, batch: int, side: int) -> dict[str, Run]:
    """A UNet with random weights and one run per way of sampling it, as in diffusers' builder.

    Call :func:`enter` before. Runs are made under `torch.inference_mode`, as the host runs nodes.
    """
    import comfy.sample
    from dpt_pack.dpt_core.adapter import DiscriminativeAdapter
    from dpt_pack.dpt_core.checkpoint import Checkpoint
    from dpt_pack.dpt_core.config import AdapterConfig
    from dpt_pack.dpt_core.correction import PRESETS, Correction
    from dpt_pack.nodes.host.adapter import managed
    from dpt_pack.nodes.host.correction import with_self_correction

    config = AdapterConfig.from_json(adapter_config(name).to_json())  # the pack's own class
    with torch.inference_mode(False):
        weights = DiscriminativeAdapter(config).requires_grad_(False).eval()
    adapter = managed(name, Checkpoint(config, weights, {}))
    model = _model(name, dtype)
    positive, negative = (_text(config.text_width, name, seed) for seed in (1, 2))
    noise = torch.randn(batch, 4, side, side, generator=torch.Generator().manual_seed(0))
    clock = Clock(device)

    published = PRESETS["published"]

    def run(correction: Correction | None, scorer: type | None = None) -> Run:
        corrected = with_self_correction(model, adapter, correction) if correction else model

        def timed() -> list[float]:
            times = []

            def tick(*args: Any) -> None:
                times.append(clock())

            with torch.inference_mode(), _scored_by(scorer):
                comfy.sample.sample(
                    corrected, noise, STEPS, 7.5, "euler", "normal", positive, negative,
                    torch.zeros_like(noise), callback=tick, disable_pbar=True,
                )  # fmt: skip
            return [end - start for start, end in zip(times, times[1:], strict=False)]

        return timed

    return {
        "plain": run(None),
        "off": run(replace(published, strength=0.0)),
        "exact": run(published),
        "lagged": run(replace(published, mode="lagged")),
        "published": run(published, _whole_unet_scorer()),
    }


def _scored_by(scorer: type | None) -> Any:
    return patch("dpt_pack.nodes.host.correction.Scorer", scorer) if scorer else nullcontext()


def _whole_unet_scorer() -> type:
    """Gradients as the published code takes them: the pass does not end at the tap."""
    from dpt_pack.dpt_core.backbones.base import TapReached
    from dpt_pack.nodes.host.scoring import Scorer

    class WholeUNetScorer(Scorer):
        def run_tapped(self, apply_model: Any, call: Any, read: Any, x: Any = None) -> Any:
            def go_on(h: torch.Tensor) -> torch.Tensor:
                try:
                    return read(h)
                except TapReached:
                    return h

            return super().run_tapped(apply_model, call, go_on, x)

    return WholeUNetScorer


def _model(name: str, dtype: torch.dtype) -> Any:
    if name == "demo":
        from demo_files import demo_folder
        from dpt_pack.nodes.host.demo import load_demo

        with tempfile.TemporaryDirectory() as spare:
            return load_demo(demo_folder(Path(spare))).model
    from real_files import real_config
    from tiny_models import model_patcher, randomise

    config = real_config(name)
    widths = UNETS[name]["block_out_channels"]
    config.unet_config["channel_mult"] = [width // widths[0] for width in widths]
    model = model_patcher(config, dtype)
    randomise(model.model.diffusion_model, seed=0)
    return model


def _text(width: int, name: str, seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, 77, width, generator=generator)
    pooled = torch.randn(1, 1280 if name == "sdxl" else width, generator=generator)
    vectors = {"eos_hidden": hidden[:, 5], "pooled": pooled}
    return [[hidden, {"pooled_output": pooled, "dpt_text": vectors}]]
