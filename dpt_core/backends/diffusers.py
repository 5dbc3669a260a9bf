"""The method on a diffusers `UNet2DConditionModel`, alone or inside any diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..adapter import DiscriminativeAdapter
from ..config import AdapterConfig
from ..features import FeatureTap, read_features, tap_channels
from ..score import alignment_score
from ..correction import (
    Correction,
    ScoreFunction,
    correct,
    gradient_of,
    lagged_move,
    step,
)

LAST_TIMESTEP = 999


def check_unet(unet: nn.Module, config: AdapterConfig) -> None:
    """Check that an adapter can read a UNet.

    Raises:
        ValueError: the tap is missing or has another width.
    """
    found = tap_channels(unet.config.block_out_channels, config.tap)
    if found != config.in_channels:
        raise ValueError(
            f"this adapter expects {config.in_channels} channels at tap {config.tap}, the UNet has "
            f"{found}: load an adapter that was trained on this model's family"
        )


def score_function(
    unet: nn.Module,
    adapter: DiscriminativeAdapter,
    timestep: torch.Tensor | float,
    context: torch.Tensor,
    text: torch.Tensor,
    **inputs: Any,
) -> ScoreFunction:
    """The alignment score as a function of the UNet's input.

    Args:
        unet: the UNet; it runs up to the adapter's tap only.
        adapter: the adapter, on the UNet's device.
        timestep: a number or `[B]`, in [0, 1000).
        context: `[B, L, E]` what the UNet attends to (`encoder_hidden_states`).
        text: `[B, D]` or `[1, D]` text vectors `y`.
        inputs: further keyword inputs of the UNet.

    Returns:
        From variance-preserving latents `[B, C, h, w]` to scores `[B]` in float32.
    """

    def score(z: torch.Tensor) -> torch.Tensor:
        features = read_features(
            unet, adapter.config.tap, lambda: unet(z, timestep, context, **inputs)
        )
        return _score(adapter, features, timestep, text)

    return score


class CorrectedRun:
    """What happened in a self-correcting run.

    Attributes:
        scores: per corrected UNet call, the scores `[B]` before the move.
        timesteps: per corrected call, its timestep.
    """

    def __init__(self) -> None:
        self.scores: list[torch.Tensor] = []
        self.timesteps: list[float] = []


@contextmanager
def self_correcting(
    unet: nn.Module,
    adapter: DiscriminativeAdapter,
    text: torch.Tensor,
    strength: float = 0.5,
    *,
    guided: bool = True,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    every_n_steps: int = 1,
    rule: str = "published",
    inner_steps: int = 1,
    mode: str = "exact",
    scheduler: Any = None,
) -> Iterator[CorrectedRun]:
    """Let a UNet correct the latents it is called with: `ẑ = z + η ∂s/∂z`.

    Inside the context any pipeline or loop that calls the UNet is self-correcting. Only the
    conditional rows move; the scheduler keeps stepping from its own latent, as published.

    Args:
        unet: the UNet of a pipeline.
        adapter: the adapter, on the UNet's device.
        text: `[B, D]`, or `[1, D]` for all pictures, text vectors of the positive prompts.
        strength: the paper's η, ≥ 0; 0 leaves every call as it is.
        guided: the UNet is called with unconditional rows first and as many conditional rows
            after them, as diffusers does with classifier-free guidance.
        start_percent, end_percent: part of the noise schedule to correct, each in [0, 1].
        every_n_steps: correct every n-th call, ≥ 1.
        rule, inner_steps: see :func:`~dpt_core.correction.correct`.
        mode: one of :data:`~dpt_core.correction.MODES`; lagged and guidance have about half
            the extra cost of exact.
        scheduler: the pipeline's, which knows the noise; for the annealed rule and for guidance.

    Yields:
        The scores as they come.

    Raises:
        ValueError: the adapter does not fit the UNet, there is no such mode, or the scheduler is
            missing or does not say how much noise there is.
    """
    check_unet(unet, adapter.config)
    Correction(strength, start_percent, end_percent, every_n_steps, mode, rule, inner_steps)
    needs_noise = rule == "annealed" or mode == "guidance"
    if needs_noise and not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            "the annealed rule and the mode guidance need to know the noise: give scheduler, the "
            f"pipeline's, of a kind that has alphas_cumprod; got {type(scheduler).__name__}"
        )
    run, calls, inside = CorrectedRun(), 0, False
    latest, earliest = ((1 - percent) * LAST_TIMESTEP for percent in (start_percent, end_percent))
    half = unet.dtype == torch.float16
    previous: torch.Tensor | None = None
    plain, replaced = unet.forward, "forward" in vars(unet)

    def exact(z: torch.Tensor, rows: slice, call: UNetCall, alpha: float) -> Any:
        timestep, context, chosen = call.of(rows, len(z))
        score = score_function(unet, adapter, timestep, context, text, **chosen)
        corrected = correct(
            z[rows], score, strength, half=half, rule=rule, inner_steps=inner_steps,
            noise_variance=1 - alpha,
        )  # fmt: skip
        run.scores.append(corrected.score.cpu())
        moved = z.clone()
        moved[rows] = corrected.latent
        return plain(moved, call.timestep, call.context, **call.inputs)

    def in_one_pass(z: torch.Tensor, rows: slice, call: UNetCall, alpha: float) -> Any:
        nonlocal previous
        timestep, context, chosen = call.of(rows, len(z))
        start = z[rows]
        if previous is not None and previous.shape != start.shape:
            previous = None
        if previous is not None:
            start = start + previous.to(start.dtype)
        found = []

        def at_tap(features: torch.Tensor) -> None:
            score = _score(adapter, features, timestep, text)
            found[:] = score.detach().float().cpu(), gradient_of(score, leaf, half)
            torch.set_grad_enabled(False)  # the rest needs no graph; enable_grad restores it

        tap = FeatureTap(unet, adapter.config.tap, then=at_tap)
        with torch.inference_mode(False), torch.enable_grad(), tap:
            leaf = start.detach().clone().requires_grad_()
            output = plain(leaf, timestep, context, **chosen)
        score, gradient = found
        run.scores.append(score)
        move = step(gradient, strength, rule=rule, noise_variance=1 - alpha)
        predicted = output[0]
        if mode == "lagged":
            previous = lagged_move(previous, move)
        else:
            predicted = predicted + _in_prediction(move, alpha, scheduler).to(predicted.dtype)
        if len(start) < len(z):
            others = slice(None, len(z) - len(start))
            timestep, context, chosen = call.of(others, len(z))
            predicted = torch.cat((plain(z[others], timestep, context, **chosen)[0], predicted))
        return (predicted,) if isinstance(output, tuple) else type(output)(predicted)

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, inside
        if inside or strength == 0:
            return plain(*args, **kwargs)
        call = UNetCall.of_arguments(args, kwargs)
        level = float(torch.as_tensor(call.timestep).flatten()[0])
        due = calls % every_n_steps == 0 and earliest <= level <= latest
        calls += 1
        if not due:
            return plain(*args, **kwargs)
        z = call.sample
        rows = slice(len(z) // 2, None) if guided else slice(None)
        run.timesteps.append(level)
        alpha = float(scheduler.alphas_cumprod[round(level)]) if needs_noise else 1.0
        inside = True
        try:
            return (exact if mode == "exact" else in_one_pass)(z, rows, call, alpha)
        finally:
            inside = False

    unet.forward = forward
    try:
        yield run
    finally:
        if replaced:
            unet.forward = plain
        else:
            del unet.forward


@dataclass(frozen=True)
class UNetCall:
    """What a UNet was called with.

    Attributes:
        sample, timestep, context: its three positional inputs.
        inputs: the others, by name.
    """

    sample: torch.Tensor
    timestep: torch.Tensor | float
    context: torch.Tensor
    inputs: dict[str, Any]

    @classmethod
    def of_arguments(cls, args: tuple, kwargs: dict[str, Any]) -> UNetCall:
        names = ("sample", "timestep", "encoder_hidden_states")
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        return cls(*(inputs.pop(name) for name in names), inputs)

    def of(self, rows: slice, total: int) -> tuple[Any, torch.Tensor, dict[str, Any]]:
        """Timestep, context and other inputs of some rows."""
        timestep = rows_of(self.timestep, rows, total)
        return timestep, self.context[rows], rows_of(self.inputs, rows, total)


def _score(
    adapter: DiscriminativeAdapter,
    features: torch.Tensor,
    timestep: torch.Tensor | float,
    text: torch.Tensor,
) -> torch.Tensor:
    timesteps = torch.as_tensor(timestep, device=features.device).expand(len(features))
    return alignment_score(adapter.match(features.float(), timesteps), text.float())


def _in_prediction(move: torch.Tensor, alpha: float, scheduler: Any) -> torch.Tensor:
    """What a UNet's output changes by where `x̂₀` changes by `move / √ᾱ`.

    `x̂₀ = (z − √(1−ᾱ) ε̂)/√ᾱ`, and `x̂₀ = √ᾱ z − √(1−ᾱ) v̂`.

    Raises:
        ValueError: the UNet predicts something else.
    """
    noise, signal = (1 - alpha) ** 0.5, alpha**0.5
    divisors = {"epsilon": -noise, "v_prediction": -noise * signal, "sample": signal}
    kind = scheduler.config.prediction_type
    if kind not in divisors:
        raise ValueError(f"guidance knows predictions of {', '.join(divisors)}; this is {kind}")
    return move / divisors[kind]


def rows_of(value: Any, rows: slice | torch.Tensor, total: int) -> Any:
    """Some rows of nested UNet inputs; what has no row for each of `total` stays."""
    if torch.is_tensor(value):
        return value[rows] if value.ndim and len(value) == total else value
    if isinstance(value, Mapping):
        return {key: rows_of(item, rows, total) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(rows_of(item, rows, total) for item in value)
    return value


@torch.no_grad()
def text_vectors(pipeline: Any, prompts: Sequence[str], source: str = "eos_hidden") -> torch.Tensor:
    """Text vectors `y` of prompts, `[B, D]`.

    Args:
        pipeline: a diffusers pipeline of Stable Diffusion 1.x, 2.x or SDXL.
        prompts: the prompts.
        source: one of :data:`dpt_core.config.TEXT_SOURCES`.
    """
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
    xl = getattr(pipeline, "text_encoder_2", None) is not None
    if xl:
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
        output = encoder(ids, output_hidden_states=True)
        if source == "pooled":
            vectors = [output[0] if xl else output.pooler_output]  # SDXL: of the second encoder
            continue
        hidden = output.hidden_states[-2] if xl else output.last_hidden_state
        ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
        vectors.append(hidden[torch.arange(len(ids)), ends])
    return torch.cat(vectors, dim=-1)
