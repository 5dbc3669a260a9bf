"""Passes of a frozen model to a tap, as training asks for them: rows with their own texts together.

See :class:`dpt_core.training.features.FeatureSource`. Being a "sampler", like :mod:`.read_once`, it
gets the model as the host's own samplers do: loaded, patched, within its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.model_management as management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ...dpt_core.backbones.base import TapReached
from .backbones.registry import backbone_of
from .calls import ModelCall
from .correction import without_self_correction
from .gradients import attention_override, usable
from .noise import HostNoise
from .text_store import HostTexts

KEY = "dpt_train"

AT_ONCE = 96
"""Rows that are passed together at most."""


class HostPasses(comfy.samplers.Sampler):
    """A "sampler" that hands itself to `work` as a source of features.

    Args:
        texts: what rows attend to.
        work: called once, while the model is loaded, outside inference mode.
    """

    def __init__(self, texts: HostTexts, work: Callable[[HostPasses], None]) -> None:
        self._texts, self._work = texts, work
        self.text = texts.source
        self._most_rows = AT_ONCE

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
        self.model, self.options = model_wrap.inner_model, extra_args["model_options"]
        self.backbone = backbone_of(self.model)
        self.family, self.device = self.backbone.family, latent_image.device
        self.noise = HostNoise(self.model.model_sampling)
        with torch.inference_mode(False), torch.enable_grad():
            self._work(self)
        return latent_image

    def taps(self) -> Mapping[str, int]:
        return self.backbone.taps()

    def text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        with torch.inference_mode(False):
            return self._texts.vectors(texts).clone().to(self.device)

    def read(
        self,
        taps: Sequence[str],
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
    ) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor | None]] = {tap: [None] * len(texts) for tap in taps}
        with torch.inference_mode():
            for group in self._texts.groups(texts):
                start = 0
                while start < len(group):
                    rows = group[start : start + self._rows_that_fit(clean)]
                    try:
                        read = self._pass(
                            taps, clean[rows], noise[rows], levels[rows], [texts[r] for r in rows]
                        )
                    except management.OOM_EXCEPTION as error:
                        if len(rows) == 1:
                            raise ValueError(
                                "out of memory in a pass of a single picture: lower the size of "
                                "the pictures, or unload other models"
                            ) from error
                        self._most_rows = len(rows) // 2
                        management.soft_empty_cache()
                        continue
                    for tap, features in read.items():
                        for row, one in zip(rows, features, strict=True):
                            found[tap][row] = one
                    start += len(rows)
        return {tap: torch.stack(each).clone() for tap, each in found.items()}

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents `[R, ...]` and their sigmas `[R]`, of latents as a VAE encodes them."""
        clean = self.model.process_latent_in(clean.to(self.device).float())
        sigmas = torch.tensor([self.noise.sigma(float(level)) for level in levels])
        sigmas = sigmas.to(self.device)
        return self.noise.noised(sigmas, clean, noise.to(clean)), sigmas

    def denoised(self, x: torch.Tensor, sigmas: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Clean predictions `[R, ...]` for noisy latents with a text each."""
        rows: list[torch.Tensor | None] = [None] * len(texts)
        for group in self._texts.groups(texts):
            self.call(x[group], sigmas[group], [texts[row] for row in group])
            for row, one in zip(group, self._denoised, strict=True):
                rows[row] = one
        del self._denoised
        return torch.stack(rows)

    def compared(
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean predictions `[R, ...]` of noised latents, what they should be, and how a prediction
        of the network counts in them, `[R, 1, ...]`."""
        x, sigmas = self.noised(clean, noise, levels)
        found = self.denoised(x, sigmas, texts).float()
        target = self.model.process_latent_in(clean.to(self.device).float())
        return found, target, self.noise.unit(sigmas, x)

    def call(self, x: torch.Tensor, sigmas: torch.Tensor, texts: Sequence[str]) -> None:
        """Have the host call the model on rows with a text each, all of one group."""
        entries = comfy.sampler_helpers.convert_cond(self._texts.joined(texts))
        conds = comfy.samplers.process_conds(
            self.model, x, {"positive": entries}, self.device, latent_image=x, seed=0
        )
        positive = [conds["positive"]]
        comfy.samplers.calc_cond_batch(self.model, positive, x, sigmas, self.options)

    def apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around the model call: read it; nothing is denoised."""
        call = ModelCall.of_arguments(*args, **inputs)
        if self._taps is None:
            call = call.uncached().with_options(optimized_attention_override=attention_override)
            parts = usable((call.x, call.sigma, call.inputs))
            self._denoised = ModelCall(*parts[:2], call.options, parts[2]).run(executor)
            return torch.zeros_like(call.x)
        *before, last = sorted(self._taps, key=list(self.taps()).index)

        def keep(tap: str) -> Callable[[torch.Tensor], torch.Tensor]:
            def read(features: torch.Tensor) -> torch.Tensor:
                self._read[tap] = features.clone()
                if tap == last:
                    raise TapReached
                return features

            return read

        with ExitStack() as stack:
            for tap in (*before, last):
                call = stack.enter_context(self.backbone.tapped(tap, call, keep(tap)))
            try:
                call.run(executor)
            except TapReached:
                pass
        return torch.zeros_like(call.x)

    _taps: Sequence[str] | None = None

    def _pass(
        self,
        taps: Sequence[str],
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
    ) -> dict[str, torch.Tensor]:
        self._taps, self._read = taps, {}
        try:
            self.call(*self.noised(clean, noise, levels), texts)
        finally:
            self._taps = None
        if missing := [tap for tap in taps if tap not in self._read]:
            raise ValueError(
                f"the pass never came to tap {missing[0]}: another node answers in the model's "
                "place, or skips that block. Remove it, or choose another tap"
            )
        return self._read

    def _rows_that_fit(self, clean: torch.Tensor) -> int:
        row = self.model.memory_required([1, *clean.shape[1:]])
        fitting = int(management.get_free_memory(self.device) // row)
        return max(1, min(self._most_rows, fitting))


def with_passes(
    model: Any, texts: HostTexts, latent: torch.Tensor, work: Callable[[HostPasses], None]
) -> None:
    """Have the host load a model, and work with its passes meanwhile.

    A correction that an earlier node put on the model plays no part.

    Args:
        model: the host's ModelPatcher; not changed.
        texts: of it.
        latent: `[1, ...]` of the shape that passes will have, as a VAE encodes it.
        work: called once.
    """
    passes = HostPasses(texts, work)
    model = without_self_correction(model).clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, passes.apply_model)
    guider = comfy.samplers.CFGGuider(model)
    texts.add("")
    guider.inner_set_conds({"positive": texts.joined([""])})
    zeros = torch.zeros_like(latent)
    guider.sample(zeros, zeros, passes, torch.tensor([1.0, 0.0]), disable_pbar=True, seed=0)
