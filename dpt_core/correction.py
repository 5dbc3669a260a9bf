"""Self-correction (Section 3.4 of arXiv 2403.04321): the latent climbs the alignment score.

Before the backbone denoises a latent, its conditional copy moves along the score's gradient:
`ẑ = z + η ∂s/∂z`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .settings import check_settings, setting

if TYPE_CHECKING:
    from .backbones.base import Noise

ScoreFunction = Callable[[torch.Tensor], torch.Tensor]
"""From latents `[B, ...]` to alignment scores `[B]`, differentiable."""

RULES = ("published", "normalised", "annealed")
"""How far a latent moves. The published step is `η ∂s/∂z`. The normalised one has the gradient's
direction and, whatever its size, a root mean square of η over the latent's numbers. The annealed
one is `η (1 − ᾱ) ∂s/∂z`, as far as a classifier with the logit `η s` guides (Dhariwal and Nichol,
arXiv 2105.05233, equation 14): far while there is noise, not at all in the end."""

MODES = ("exact", "lagged", "guidance")
"""What the gradient moves. exact: the latent it was taken at, before the backbone denoises it, as
published. The others take it from the backbone's one pass. lagged: the latents of the next steps
(:func:`lagged_move`), until another gradient is taken.
guidance: the prediction of that pass, `x̂₀ + (move of z)/√ᾱ`, as a classifier guides."""


@dataclass(frozen=True)
class Correction:
    """How a run corrects itself. Node inputs, command options and documents follow from it.

    The defaults are the preset *balanced*. Checked when it is made, wherever its values came from.

    Raises:
        ValueError: a value is out of range or not a number, or two contradict each other.
    """

    strength: float = setting(
        50.0,
        "How far the latent moves along the score's gradient (the paper's guidance factor, "
        "published value 0.5). Larger corrects more; 0 switches it off at no cost.",
        minimum=0.0, maximum=10_000.0, step=0.05,
    )  # fmt: skip
    start_percent: float = setting(
        0.0,
        "Where in the sampling correction begins. The paper corrects from 0.",
        minimum=0.0, maximum=1.0, step=0.01,
    )  # fmt: skip
    end_percent: float = setting(
        0.5,
        "Where correction ends. The paper corrects to 1; the layout forms early, so an earlier end "
        "saves time.",
        minimum=0.0, maximum=1.0, step=0.01,
    )  # fmt: skip
    every_n_steps: int = setting(
        1,
        "Take a gradient at every n-th step only. Lagged, the steps between keep the last move; "
        "otherwise they are plain. The paper takes one at every step (1).",
        minimum=1, maximum=1000,
    )  # fmt: skip
    mode: str = setting(
        "lagged",
        "exact: the paper's loop. The others take about half the extra time: lagged moves the next "
        "step's latent, guidance moves the step's own prediction.",
        choices=MODES,
    )
    step: str = setting(
        "annealed",
        "published: the paper's step, strength times the gradient. normalised: the gradient's "
        "direction with a length of its own (try strength 0.02 to 0.1). annealed: strength times "
        "the gradient times the share of noise (try 20 to 80).",
        choices=RULES,
    )
    inner_steps: int = setting(
        1,
        "Moves in a row at each corrected step, each with its own gradient and its own cost. The "
        "paper makes one. Only with mode exact.",
        minimum=1, maximum=20,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        if self.start_percent > self.end_percent:
            raise ValueError(
                f"start_percent ({self.start_percent:g}) must not exceed end_percent "
                f"({self.end_percent:g})"
            )
        if self.mode != "exact" and self.inner_steps > 1:
            raise ValueError(
                f"inner_steps ({self.inner_steps}) needs mode exact: {self.mode} takes one "
                "gradient a step, from the pass that is needed anyway"
            )

    @classmethod
    def chosen(cls, preset: str, **settings: Any) -> Correction:
        """A preset by name, or with *custom* the settings.

        Raises:
            ValueError: no such preset, or settings that cannot be.
        """
        if preset == CUSTOM:
            return cls(**settings)
        if preset not in PRESETS:
            raise ValueError(
                f"preset must be one of {', '.join((*PRESETS, CUSTOM))}; got {preset!r}"
            )
        return PRESETS[preset]

    def move(self, gradient: torch.Tensor, noise: Noise) -> torch.Tensor:
        """How far variance-preserving latents `[R, ...]` move.

        Args:
            gradient: `[R, ...]`, ∂s/∂x in the model's own space.
            noise: in those latents.
        """
        return step(
            gradient / noise.scale, self.strength, rule=self.step, noise_variance=noise.variance
        )


CUSTOM = "custom"
"""What nodes and commands call settings that are no preset."""

PRESETS = {
    "balanced": Correction(),
    "fast": Correction(end_percent=0.6, every_n_steps=2),
    "published": Correction(0.5, 0.0, 1.0, 1, "exact", "published", 1),
}
"""Settings by name, the default first: from a sweep in the shapes world, and the paper's."""

LOSS_SCALES = (2.0**12, 2.0**6, 1.0)
"""Loss scales tried in turn when the backbone runs in float16."""


class CorrectedLatent(NamedTuple):
    """A latent after one correction.

    Attributes:
        latent: the moved latent, same shape and dtype as the input.
        score: `[B]` float32, the score *before* the move.
        gradient: ∂s/∂latent in the caller's parametrisation, float32, zero where it was not
            finite.
    """

    latent: torch.Tensor
    score: torch.Tensor
    gradient: torch.Tensor


def gradient_of(score: torch.Tensor, latent: torch.Tensor, half: bool = False) -> torch.Tensor:
    """∂(Σ s)/∂latent in float32.

    Args:
        score: `[B]`, computed from `latent`.
        latent: `[B, ...]`, a leaf that requires a gradient.
        half: the backbone computes in float16: the score is scaled before back-propagation so
            that small gradients do not vanish, less where that overflows.

    Raises:
        ValueError: the score does not depend on the latent through differentiable operations.
    """
    if not score.requires_grad:
        raise ValueError(
            "the alignment score has no gradient: something between the latent and the tap is "
            "not differentiable (a compiled or quantised backbone, for example)"
        )
    scales = LOSS_SCALES if half else (1.0,)
    for scale in scales:
        last = scale == scales[-1]
        (gradient,) = torch.autograd.grad(score.sum() * scale, latent, retain_graph=not last)
        gradient = gradient.float() / scale
        if gradient.isfinite().all():
            break
    return gradient


def score_gradient(
    latent: torch.Tensor, score_fn: ScoreFunction, half: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and its gradient, row by row.

    Args:
        latent: `[B, ...]`.
        score_fn: see :data:`ScoreFunction`; must not mix rows.
        half: see :func:`gradient_of`.

    Returns:
        Score `[B]` and gradient like `latent`, both float32.

    Raises:
        ValueError: see :func:`gradient_of`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = latent.detach().clone().requires_grad_()
        score = score_fn(leaf)
        gradient = gradient_of(score, leaf, half)
    return score.detach().float(), gradient


def finite_rows(gradient: torch.Tensor) -> torch.Tensor:
    """Which rows of a gradient `[B, ...]` are finite throughout, `[B]` bool."""
    return gradient.isfinite().flatten(1).all(dim=1)


def without_bad_rows(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient `[B, ...]` with zeros in the rows that are not finite throughout."""
    return torch.where(finite_rows(gradient).view(-1, *[1] * (gradient.ndim - 1)), gradient, 0.0)


def step(
    gradient: torch.Tensor,
    strength: float,
    input_scale: float | torch.Tensor = 1.0,
    rule: str = "published",
    noise_variance: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """How far a latent moves, zero for rows whose gradient is not finite.

    A sampler that holds `x = z / a` sees the gradient `g_x = a ∂s/∂z`. Moving z by `η ∂s/∂z` moves
    x by `η g_x / a²`; moving z by `η √n ∂s/∂z / ‖∂s/∂z‖` moves x by `η √n g_x / (a ‖g_x‖)`.

    Args:
        gradient: `[B, ...]`, ∂s/∂x.
        strength: η, ≥ 0; published value 0.5, sensible normalised values 0.01 to 0.2, annealed
            ones 10 to 50.
        input_scale: a, a number or `[B, 1, ...]`; 1 for variance-preserving latents.
        rule: one of :data:`RULES`.
        noise_variance: 1 − ᾱ, like `input_scale`; for the annealed rule.

    Raises:
        ValueError: no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"the step must be one of {', '.join(RULES)}; got {rule!r}")
    gradient = without_bad_rows(gradient)
    if rule == "annealed":
        strength = strength * noise_variance
    if rule != "normalised":
        return gradient * (strength / input_scale**2)
    size = gradient.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (gradient.ndim - 1))
    return gradient / size.clamp(min=torch.finfo(size.dtype).tiny) * (strength / input_scale)


def correct(
    z: torch.Tensor,
    score_fn: ScoreFunction,
    strength: float,
    *,
    input_scale: float = 1.0,
    half: bool = False,
    rule: str = "published",
    inner_steps: int = 1,
    noise_variance: float | torch.Tensor = 1.0,
) -> CorrectedLatent:
    """Move latents along the gradient of their alignment score: `ẑ = z + η ∂s/∂z`.

    Args:
        z: `[B, ...]` variance-preserving latents, or `x = z / a` with `input_scale` a.
        score_fn: see :data:`ScoreFunction`; it takes what `z` holds.
        strength: η, ≥ 0, published value 0.5.
        input_scale: a, in (0, 1].
        half: the backbone computes in float16 (see :func:`score_gradient`).
        rule: one of :data:`RULES`; the paper has the first.
        inner_steps: moves in a row, each along the gradient where the last one ended; the paper
            has 1. Score and gradient returned are those of the first.
        noise_variance: 1 − ᾱ, for the annealed rule.

    Raises:
        ValueError: negative strength, no inner step, an unknown rule, or a score without gradient.
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0; got {strength}")
    if inner_steps < 1:
        raise ValueError(f"inner_steps must be at least 1; got {inner_steps}")
    moved, first = z, None
    for _ in range(inner_steps):
        score, gradient = score_gradient(moved, score_fn, half)
        first = first or (score, without_bad_rows(gradient))
        moved = moved + step(gradient, strength, input_scale, rule, noise_variance).to(z.dtype)
    return CorrectedLatent(moved, *first)


def lagged_move(previous: torch.Tensor | None, wanted: torch.Tensor) -> torch.Tensor:
    """How far the next latent moves in lagged mode: half-way from the last move to the wanted one.

    The gradient was taken where the last move led, so after a long move it asks for a short one;
    undamped, the two take turns.

    Args:
        previous: the move at whose end the gradient was taken, or None for no move.
        wanted: what the gradient asks for, like `previous`.
    """
    return wanted if previous is None else (previous + wanted) / 2


def keep_sampler_latent(
    denoised: torch.Tensor, skip_corrected: torch.Tensor, skip: torch.Tensor
) -> torch.Tensor:
    """Let the sampler step from its own latent with the prediction made at the corrected one.

    Every parametrisation writes `D(x) = c_skip x + c_out F(x)`. The published loop takes F at x̂
    and steps from x, so the sampler must be given `D(x̂) − c_skip x̂ + c_skip x`.

    Args:
        denoised: D(x̂).
        skip_corrected: `c_skip x̂`, that is D at x̂ for a prediction of zero.
        skip: `c_skip x`.
    """
    return denoised - skip_corrected + skip
