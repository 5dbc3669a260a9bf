"""Stable Diffusion 1.x, 2.x and SDXL: diffusers' `UNet2DConditionModel`.

Taps have the paper's names: `bottomK` is the output of down block K (after its downsampler), `mid`
that of the middle block, `upK` that of up block K (after its upsampler).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from ..config import TAPS
from .base import BackboneCall, Reader, TapReached, output_of, second_half

STEPS = 1000
"""Timesteps of the noise schedule."""

_NAMES = ("sample", "timestep", "encoder_hidden_states")


def split_tap(tap: str, levels: int) -> tuple[str, int]:
    """Split a tap name into its kind (`bottom`, `mid`, `up`) and block index.

    Args:
        tap: one of :data:`~dpt_core.config.TAPS`.
        levels: number of resolution levels of the UNet (4 for SD 1.x and 2.x, 3 for SDXL).

    Raises:
        ValueError: no such tap, or the UNet has too few levels for it.
    """
    match = re.fullmatch(r"(bottom|mid|up)(\d?)", tap)
    if tap not in TAPS or match is None:
        raise ValueError(f"tap must be one of {', '.join(TAPS)}; got {tap!r}")
    kind, index = match[1], int(match[2] or 0)
    if index >= levels:
        raise ValueError(f"tap {tap!r} does not exist: this UNet has {levels} levels")
    return kind, index


def unet_taps(block_out_channels: Sequence[int]) -> dict[str, int]:
    """Channels of the feature map at each tap of a UNet, in order of computation.

    Args:
        block_out_channels: the UNet's channels per level, outermost first (diffusers' name).
    """
    channels = list(block_out_channels)
    taps = {f"bottom{index}": count for index, count in enumerate(channels)}
    taps["mid"] = channels[-1]
    return taps | {f"up{index}": count for index, count in enumerate(channels[::-1])}


class DiscreteNoise:
    """The noise of a diffusers scheduler with discrete timesteps; sigma is the timestep.

    The UNet is called with variance-preserving latents, so `α = √ᾱ` and `s = √(1 − ᾱ)`.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def weights(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """α and s of timesteps `[R]`.

        Raises:
            ValueError: the scheduler does not say how much noise there is.
        """
        schedule = getattr(self._scheduler, "alphas_cumprod", None)
        if schedule is None:
            raise ValueError(
                "a correction needs to know the noise: use a scheduler of a kind that has "
                f"alphas_cumprod (DDIMScheduler, …); got {type(self._scheduler).__name__}"
            )
        kept = schedule.cpu().double()[sigma.cpu().round().long()]
        return kept.sqrt(), (1 - kept).sqrt()

    def level(self, sigma: torch.Tensor) -> torch.Tensor:
        """The timestep."""
        return sigma

    def sigma(self, level: float) -> float:
        """The timestep."""
        return level

    def reached(self, percent: float) -> float:
        """Timestep when a share of the schedule is over."""
        return (1 - percent) * (STEPS - 1)


class StableDiffusion:
    """The UNet of a diffusers pipeline; see :class:`~dpt_core.backbones.base.Backbone`.

    Args:
        pipeline: has `unet` and `scheduler`; for texts also the encoders of the pipeline.
    """

    family = "unet"
    texts = ("eos_hidden", "pooled")
    patch = 1
    sign = 1.0

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.module: nn.Module = pipeline.unet
        self.path = DiscreteNoise(pipeline.scheduler)

    def taps(self) -> Mapping[str, int]:
        """Tap name → channels."""
        return unet_taps(self.module.config.block_out_channels)

    @contextmanager
    def tapped(self, tap: str, call: BackboneCall, reader: Reader) -> Iterator[None]:
        """Hand the features of every pass at a tap to `reader`; it may end the pass."""

        def read(block: nn.Module, inputs: Any, output: Any) -> Any:
            several = isinstance(output, tuple)
            features = reader(output[0] if several else output)
            return (features, *output[1:]) if several else features

        hook = self._block(tap).register_forward_hook(read)
        try:
            with suppress(TapReached):
                yield
        finally:
            hook.remove()

    def blocks(self, tap: str) -> Sequence[nn.Module]:
        """The UNet's blocks up to a tap."""
        unet = self.module
        order = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return order[: order.index(self._block(tap)) + 1]

    def call(self, args: tuple, kwargs: dict[str, Any]) -> BackboneCall:
        """What the UNet is called with."""
        inputs = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
        x, timestep = inputs.pop("sample"), inputs.pop("timestep")
        return BackboneCall(x, timestep, inputs)

    def run(self, forward: Callable[..., Any], call: BackboneCall) -> torch.Tensor:
        """What the UNet predicts."""
        return forward(call.x, call.sigma, **call.inputs | {"return_dict": False})[0]

    def result(self, call: BackboneCall, predicted: torch.Tensor) -> Any:
        """A prediction as diffusers' UNet returns it."""
        return output_of(call, predicted, "unets.unet_2d_condition.UNet2DConditionOutput")

    def conditional(self, call: BackboneCall, guided: bool | None = None) -> slice:
        """The second half of a guided call."""
        return second_half(self._pipeline, call, guided)

    def shift(self, sigma: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """By `x̂₀ = (z − s ε̂)/α` and `x̂₀ = α z − s v̂`.

        Raises:
            ValueError: the UNet predicts something else.
        """
        of_clean, _ = self._factors(sigma, clean)
        return clean * of_clean

    def clean(self, sigma: torch.Tensor, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The clean prediction; formulas and errors as in :meth:`shift`."""
        of_clean, of_latent = self._factors(sigma, x)
        return (output - of_latent * x) / of_clean

    def _factors(self, sigma: torch.Tensor, x: torch.Tensor) -> tuple[Any, Any]:
        """(a, b) of `output = a x̂₀ + b z`."""
        alpha, noise = self._weights(sigma, x)
        kind = self._pipeline.scheduler.config.prediction_type
        factors = {
            "epsilon": (-alpha / noise, 1 / noise),
            "v_prediction": (-1 / noise, alpha / noise),
            "sample": (1.0, 0.0),
        }
        if kind not in factors:
            raise ValueError(
                f"the clean prediction is known from {', '.join(factors)}; this is {kind}"
            )
        return factors[kind]

    def target(self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The noise, the velocity `α ε − s x₀` or the picture.

        Raises:
            ValueError: the UNet predicts something else.
        """
        alpha, scale = self._weights(sigma, clean)
        kind = self._pipeline.scheduler.config.prediction_type
        targets = {
            "epsilon": noise,
            "v_prediction": alpha * noise - scale * clean,
            "sample": clean,
        }
        if kind not in targets:
            raise ValueError(f"known are predictions of {', '.join(targets)}; this is {kind}")
        return targets[kind]

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """The UNet takes latents as they are."""
        return latents

    def unpacked(self, x: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """The UNet takes latents as they are."""
        return x

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Encode prompts as the pipeline does; SDXL is told the size of the picture."""
        pipeline = self._pipeline
        encoded = pipeline.encode_prompt(
            list(prompts), num_images_per_prompt=1, device=pipeline.device,
            do_classifier_free_guidance=False,
        )  # fmt: skip
        context = encoded[0]
        if not self._is_xl:
            return {"encoder_hidden_states": context}
        height, width = (side * pipeline.vae_scale_factor for side in size)
        sizes = torch.tensor([height, width, 0, 0, height, width]).to(context)
        added = {"text_embeds": encoded[2], "time_ids": sizes.repeat(len(context), 1)}
        return {"encoder_hidden_states": context, "added_cond_kwargs": added}

    def arguments(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Diffusers samples without guidance at 1."""
        return {"guidance_scale": guidance}

    @torch.no_grad()
    def text_vectors(
        self,
        prompts: Sequence[str],
        source: str = "eos_hidden",
        inputs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """The state at the end-of-text token, or the encoder's pooled output, `[B, D]`."""
        pipeline = self._pipeline
        encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
        if self._is_xl:
            encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        vectors = []
        for tokenizer, encoder in encoders:
            ids = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(encoder.device)
            ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
            if inputs and source == "eos_hidden" and not self._is_xl:
                return inputs["encoder_hidden_states"][torch.arange(len(ids)), ends]
            output = encoder(ids, output_hidden_states=True)
            if source == "pooled":  # SDXL: of the second encoder
                vectors = [output[0] if self._is_xl else output.pooler_output]
                continue
            hidden = output.hidden_states[-2] if self._is_xl else output.last_hidden_state
            vectors.append(hidden[torch.arange(len(ids)), ends])
        return torch.cat(vectors, dim=-1)

    def _weights(self, sigma: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shape = (-1, *[1] * (like.ndim - 1))
        return tuple(part.to(like).view(shape) for part in self.path.weights(sigma))

    @property
    def _is_xl(self) -> bool:
        return getattr(self._pipeline, "text_encoder_2", None) is not None

    def _block(self, tap: str) -> nn.Module:
        unet = self.module
        kind, index = split_tap(tap, len(unet.config.block_out_channels))
        return {"bottom": unet.down_blocks, "mid": [unet.mid_block], "up": unet.up_blocks}[kind][
            index
        ]
