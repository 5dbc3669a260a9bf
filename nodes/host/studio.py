"""A host model that draws, is scored, and whose LoRA is tuned; see `dpt_core.training.tuning_run`.

The LoRA is the host's own weight adapter, added to the output of chosen layers by a forward hook:
it works on quantised and streamed weights alike, nothing is copied, and the model is as it was when
the hooks are gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch
from comfy.weight_adapter import LoRAAdapter
from torch import nn
from torch.nn.functional import linear

from nodes import common_ksampler  # the host's nodes.py: ours is a relative import away

from ...dpt_core.checkpoint import Checkpoint
from ...dpt_core.fingerprints import fingerprint
from ...dpt_core.lora import GENERIC, lora_key
from ...dpt_core.reading import noise_draws
from ...dpt_core.training.loop import Interrupted
from ...dpt_core.training.observer import Observer
from ...dpt_core.training.rewards import ERROR_DRAWS, ERROR_LEVELS, LEVELS
from ...dpt_core.training.tuning_run import Tuned, TuningRun
from ...dpt_core.training.tuning_settings import TuneSettings
from .adapter import LoadedAdapter, managed
from .backbones.registry import backbone_of, check_backbone
from .encode import encode_prompt
from .gradients import WeightViews, differentiable, recomputed
from .lora import with_lora
from .measure import measure
from .passes import HostPasses, with_passes
from .text_store import Encode, HostTexts
from .training import model_digest

SAMPLER, SCHEDULER = "euler", "normal"


def projections(backbone: Any) -> dict[str, nn.Module]:
    """The linear layers of attention in a network's blocks, by path; all of a transformer's block
    that names none so."""
    network = backbone.network
    paths = {module: path for path, module in network.named_modules()}
    found: dict[str, nn.Module] = {}
    for block in backbone.blocks(list(backbone.taps())[-1]):
        layers = {
            paths[module]: module for module in block.modules() if isinstance(module, nn.Linear)
        }
        inside = {path: path.removeprefix(paths[block]) for path in layers}
        named = {path: layer for path, layer in layers.items() if "att" in inside[path]}
        found |= named or ({} if backbone.family == "unet" else layers)  # of residual blocks
    return found


def encoder(clip: Any) -> Encode:
    """Encodes prompts with the host's CLIP, each once."""
    return cache(partial(encode_prompt, clip))


class HostStudio:
    """A model, its texts and its adapter (a `Studio`).

    Args:
        model: the host's ModelPatcher, which draws.
        adapter: reads it.
        encode: encodes a prompt.
        latent: an empty LATENT of one picture.
        steps, cfg: of the sampling.

    Raises:
        ValueError: steps are below 1.
    """

    def __init__(
        self,
        model: Any,
        adapter: LoadedAdapter,
        encode: Encode,
        latent: dict[str, Any],
        steps: int,
        cfg: float,
    ) -> None:
        if steps < 1:
            raise ValueError(f"sampling_steps must be at least 1; got {steps}")
        self.model, self.adapter, self._encode = model, adapter, encode
        self._latent, self._steps, self._cfg = latent, steps, cfg
        self._untuned = model

    def tuned(self, lora: dict[str, torch.Tensor]) -> HostStudio:
        """The same with a LoRA on the model that draws; the untuned one goes on scoring."""
        checkpoint = Checkpoint(self.adapter.config, self.adapter.checkpoint.adapter, lora)
        loaded = LoadedAdapter("the LoRA", checkpoint, self.adapter.patcher)
        other = HostStudio(
            with_lora(self.model, loaded, 1.0), self.adapter, self._encode, self._latent,
            self._steps, self._cfg,
        )  # fmt: skip
        other._untuned = self._untuned
        return other

    def sampling(self) -> dict[str, Any]:
        """How pictures are drawn, JSON by name."""
        size = list(self._latent["samples"].shape[1:])
        return {"sampling steps": self._steps, "cfg": self._cfg, "latent": size}

    def draw(self, prompt: str, seed: int, count: int) -> torch.Tensor:
        empty = self._latent["samples"][:1]
        latent = {"samples": empty.repeat(count, *[1] * (empty.ndim - 1))}
        (drawn,) = common_ksampler(
            self.model, seed, self._steps, self._cfg, SAMPLER, SCHEDULER, self._encode(prompt),
            self._encode(""), latent,
        )  # fmt: skip
        return drawn["samples"].cpu().float()

    def scores(self, latents: torch.Tensor, prompt: str) -> torch.Tensor:
        positive = self._encode(prompt)
        each = [
            measure(self._untuned, self.adapter, latents, positive, level, 1, seed).mean(0)
            for seed, level in enumerate(LEVELS)
        ]
        return torch.stack(each).mean(0).float().cpu().clone()

    def errors(self, latents: torch.Tensor, prompt: str) -> torch.Tensor:
        each: list[torch.Tensor] = []
        draws = noise_draws(latents, ERROR_DRAWS, 0)

        @torch.no_grad()
        def work(passes: HostPasses) -> None:
            for level in ERROR_LEVELS:
                levels, texts = torch.full((len(latents),), level), [prompt] * len(latents)
                for one in draws:  # not together: no more rows than were drawn
                    noise = one.expand_as(latents)
                    found, target, unit = passes.compared(latents, noise, levels, texts)
                    each.append(((found - target) / unit).square().flatten(1).mean(1).cpu())

        texts = HostTexts(self._encode, backbone_of(self._untuned.model))
        texts.add(prompt)
        with_passes(self._untuned, texts, latents[:1], work)
        return torch.stack(each).mean(0)


class TrainedLora:
    """The LoRA of a model while the host has it loaded (a `Studio` for training).

    Args:
        passes: of the model.
        rank: of the LoRA.
        seed: of its start.
    """

    def __init__(self, passes: HostPasses, rank: int, seed: int) -> None:
        self._passes, self.device = passes, passes.device
        self._layers = projections(passes.backbone)
        self.lora = nn.ModuleDict()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for path, layer in self._layers.items():
                one = LoRAAdapter.create_train(layer.weight, rank=rank, alpha=float(rank))
                self.lora[path.replace(".", "/")] = one.to(self.device, torch.float32)
        self._on = False

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Have the model computed with the LoRA where it is asked for, and gradients pass."""
        backbone, network = self._passes.backbone, self._passes.backbone.network
        hooks = [
            layer.register_forward_hook(partial(self._add, self.lora[path.replace(".", "/")]))
            for path, layer in self._layers.items()
        ]
        blocks = backbone.blocks(list(backbone.taps())[-1])
        try:
            with differentiable(WeightViews(), network), recomputed(blocks):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def denoised(
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
        tuned: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._on = tuned
        with torch.set_grad_enabled(tuned):
            return self._passes.compared(clean, noise, levels, texts)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            lora_key(GENERIC + path.replace("/", "."), side): getattr(one, f"lora_{side}")
            .weight.detach()
            .cpu()
            .clone()
            for path, one in self.lora.items()
            for side in ("down", "up")
        }

    def _add(self, one: nn.Module, layer: nn.Module, inputs: tuple, output: torch.Tensor) -> Any:
        if not self._on:
            return output
        update = linear(linear(inputs[0].float(), one.lora_down.weight), one.lora_up.weight)
        return output + update.to(output.dtype)


def tune(
    studio: HostStudio,
    prompts: Sequence[str],
    settings: TuneSettings,
    folder: Path,
    observer: Observer,
) -> tuple[Tuned, LoadedAdapter]:
    """Tune a LoRA on a model's own scored pictures; a run in that folder goes on.

    Returns:
        What was found, and the adapter with the LoRA.

    Raises:
        ValueError: adapter and model do not fit; see also :class:`TuningRun`.
    """
    model, adapter = studio.model, studio.adapter
    check_backbone(model, adapter.config)
    reader = fingerprint(adapter.checkpoint.adapter)
    about = {"model": model_digest(model), "adapter": reader, **studio.sampling()}
    run = TuningRun(prompts, folder, settings, about, observer)
    lora: dict[str, torch.Tensor] = {}
    try:
        drawn = run.draw(studio)
        texts = HostTexts(studio._encode, backbone_of(model.model))
        for text in ("", *prompts):
            texts.add(text)

        def work(passes: HostPasses) -> None:
            trained = TrainedLora(passes, settings.rank, settings.seed)
            with trained.hooked():
                run.train(trained, drawn)
            lora.update(trained.tensors())

        with_passes(model, texts, studio._latent["samples"][:1], work)
        found = run.compare(lora, studio.tuned, studio)
    except Interrupted:
        management.throw_exception_if_processing_interrupted()
        raise
    checkpoint = Checkpoint(adapter.config, adapter.checkpoint.adapter, found.lora)
    return found, managed(adapter.name, checkpoint)
