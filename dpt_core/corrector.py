"""One self-correcting run: which call is due, how far its rows move, what is remembered.

The host's samplers and diffusers' pipelines drive the same :class:`Corrector`; each tells it of a
call through :class:`Rows` and carries out what it answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from .backbones.base import Noise, NoisePath
from .correction import Correction, finite_rows, lagged_move

logger = logging.getLogger(__name__)

Listener = Callable[[int, int, torch.Tensor], None]
"""Called after each corrected call with step, number of steps and scores `[B]`."""

LEAST_SIGNAL = 0.068
"""√ᾱ where Stable Diffusion's noise ends: mode guidance divides by no less (flow models and zero
terminal signal-to-noise ratios reach 0)."""

SAME_PLACE = 0.2
"""Cosine above which a latent goes on from one of the level before: of tiles and windows, which a
call does not name, each must find its own. Unrelated noise has about 0."""

ROUNDING = 1e-4
"""Relative: a step that begins where the range ends is in it, however its level was rounded."""

NOISIEST = 900.0
"""A run that begins at this level or above begins from noise: nothing has moved before it."""


class Rows(Protocol):
    """The conditional rows of one call.

    Attributes:
        x: `[R, ...]` latents in the sampler's space.
        sigma: `[R]` noise levels, all the same.
        text: `[R, D]` text vectors that the rows should agree with.
        image: `[R]` which picture of the batch each row draws.
        mask: `[R, 1, ...]` 1 where a latent may move, or None for everywhere.
    """

    x: torch.Tensor
    sigma: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor | None

    def gradients(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `[R]` at latents `x` and their gradient ∂s/∂x, float32."""
        ...

    def predictions(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """What the network returns at `x` `[R, ...]`, scores and gradients on the way.

        None and None where the pass never came to the tap.
        """
        ...


class Corrected(NamedTuple):
    """What a call is to do.

    Attributes:
        move: `[R, ...]`: the rows are denoised at `x + move`.
        clean: `[R, ...]` to add to their clean prediction, or None.
        prediction: what the network returned at `x + move`, or None where it is still to run.
    """

    move: torch.Tensor
    clean: torch.Tensor | None = None
    prediction: torch.Tensor | None = None


class _Seen(NamedTuple):
    """The rows of a level that some rows may go on from.

    Attributes:
        index: places in the level, `P` of them.
        x: `[P, ...]` latents, of the shape of the rows'.
        text: `[R, P]` which of them should agree with the same text as each row.
    """

    index: list[int]
    x: torch.Tensor
    text: torch.Tensor


@dataclass
class _Level:
    """The rows that were corrected at one noise level, as parallel lists."""

    sigma: float = float("nan")
    text: list[torch.Tensor] = field(default_factory=list)
    x: list[torch.Tensor] = field(default_factory=list)
    move: list[torch.Tensor] = field(default_factory=list)
    after: list[torch.Tensor] = field(default_factory=list)

    def alike(self, rows: Rows) -> _Seen | None:
        """The rows of this level that have the shape of some rows, None where none has."""
        shape = rows.x.shape[1:]
        index = [place for place, x in enumerate(self.x) if x.shape == shape]
        if not index:
            return None
        text = torch.stack([self.text[place] for place in index])
        same = (rows.text[:, None] == text).all(2)
        return _Seen(index, torch.stack([self.x[place] for place in index]), same)


class Corrector:
    """State of one run. Make one per run, or :meth:`begin` anew.

    Args:
        correction: what to do.
        path: the model's noise.
        listener: told the scores as they come.

    Attributes:
        corrected: steps that were corrected so far.
        scores: per corrected call, the pictures' scores `[B]` before the move.
        levels: per corrected call, its sigma.
        starts: sigma at the start of each of the sampler's steps, falling.
    """

    def __init__(
        self, correction: Correction, path: NoisePath, listener: Listener | None = None
    ) -> None:
        self.correction, self._path, self._listener = correction, path, listener
        self.scores: list[torch.Tensor] = []
        self.levels: list[float] = []
        self.begin(())

    def begin(self, starts: Sequence[float], offset: int = 0) -> None:
        """Forget the run before.

        Args:
            starts: sigma at the start of each of the sampler's steps, falling.
            offset: steps that the sampler had taken before, in another run.
        """
        self.starts, self._offset = list(starts), offset
        self._warned = False
        self.corrected: set[int] = set()
        self._now, self._before = _Level(), _Level()

    @property
    def steps(self) -> int:
        """Steps of the sampler in this run."""
        return len(self.starts)

    def step_at(self, sigma: float) -> int:
        """Index of the step that a noise level belongs to."""
        return step_at(sigma, self.starts)

    def is_due(self, sigma: float) -> bool:
        """Whether a call at a noise level is to be corrected."""
        wanted = self.correction
        first, last = map(self._path.reached, (wanted.start_percent, wanted.end_percent))
        inside = last * (1 - ROUNDING) <= sigma <= first * (1 + ROUNDING)
        return inside and (wanted.mode == "lagged" or self._has_turn(sigma))

    def is_read(self, sigma: float) -> bool:
        """Whether a call at a noise level takes a gradient, and its score with it.

        Lagged, the steps between keep the last move, and so does the last one: what its gradient
        asks for would move nothing.
        """
        goes_on = self.correction.mode != "lagged" or self._goes_on(sigma)
        return goes_on and self.is_due(sigma) and self._has_turn(sigma)

    def correct(self, rows: Rows) -> Corrected:
        """What a call that is due is to do.

        A latent that is denoised twice at a noise level (by PAG and its like) moves once.
        """
        self._come_to(float(rows.sigma[0]))
        guided = self.correction.mode == "guidance"
        if (known := self._known(rows)) is not None:
            return Corrected(torch.zeros_like(known), known) if guided else Corrected(known)
        ways = {"exact": self._exact, "lagged": self._lagged, "guidance": self._guidance}
        return ways[self.correction.mode](rows)

    def _exact(self, rows: Rows) -> Corrected:
        """Move the rows by their own gradient."""
        move, noise = torch.zeros_like(rows.x), Noise.of(self._path, rows.sigma, rows.x)
        for inner in range(self.correction.inner_steps):
            scores, gradient = rows.gradients(rows.x + move)
            move += (self._wanted(gradient, rows, noise) / noise.scale).to(move)
            if inner == 0:
                self._note(rows, scores)
        self._keep(rows, move, move)
        return Corrected(move)

    def _lagged(self, rows: Rows) -> Corrected:
        """Move the rows by the gradients of earlier calls; keep what this call's asks for, if it is
        its turn to take one.

        A latent that no earlier call has seen (a run that begins part-way, a tile that was not
        there before) moves by its own gradient; the first one of a run from noise not at all, if
        another is to follow it.
        """
        sigma, noise = float(rows.sigma[0]), Noise.of(self._path, rows.sigma, rows.x)
        before, found = self._earlier(rows)
        noisiest = float(self._path.level(rows.sigma[:1])) >= NOISIEST
        first = not self._before.x and noisiest and self._goes_on(sigma)
        reads = self.is_read(sigma)
        if not first and not found.all():
            scores, gradient = rows.gradients(rows.x)
            own = self._wanted(gradient, rows, noise)
            before = torch.where(_like(found, own), before, own)
            if not reads:
                self._note(rows, scores)
        move = (before / noise.scale).to(rows.x)
        if not reads:
            self.corrected.add(self.step_at(sigma))
            self._keep(rows, move, before)
            return Corrected(move)
        predicted, scores, gradient = rows.predictions(rows.x + move)
        after = before
        if gradient is not None:
            self._note(rows, scores)
            after = lagged_move(None if first else before, self._wanted(gradient, rows, noise))
        self._keep(rows, move, after)
        return Corrected(move, None, predicted)

    def _has_turn(self, sigma: float) -> bool:
        """Whether a level belongs to one of every so many steps."""
        return (self.step_at(sigma) + self._offset) % self.correction.every_n_steps == 0

    def _goes_on(self, sigma: float) -> bool:
        """Whether a later step of the run is to be corrected: of a few steps, or of one, it may not
        be."""
        return any(self.is_due(start) for start in self.starts if start < sigma * (1 - ROUNDING))

    def _guidance(self, rows: Rows) -> Corrected:
        """Move the prediction by the gradient of the pass that makes it."""
        noise = Noise.of(self._path, rows.sigma, rows.x)
        predicted, scores, gradient = rows.predictions(rows.x)
        clean = torch.zeros_like(rows.x)
        if gradient is not None:
            self._note(rows, scores)
            wanted = self._wanted(gradient, rows, noise)
            clean = (wanted / noise.signal.clamp(min=LEAST_SIGNAL)).to(rows.x)
        self._keep(rows, clean, clean)
        return Corrected(torch.zeros_like(clean), clean, predicted)

    def _wanted(self, gradient: torch.Tensor, rows: Rows, noise: Noise) -> torch.Tensor:
        """How far the variance-preserving latents move, `[R, ...]`."""
        if not self._warned and not finite_rows(gradient).all():
            self._warned = True
            logger.warning("DPT: gradient not finite, those pictures stay uncorrected at that step")
        move = self.correction.move(gradient, noise)
        return move if rows.mask is None else move * rows.mask.to(move)

    def _note(self, rows: Rows, scores: torch.Tensor) -> None:
        sigma = float(rows.sigma[0])
        self.corrected.add(self.step_at(sigma))
        self.scores.append(mean_by_picture(scores, rows.image))
        self.levels.append(sigma)
        if self._listener is not None:
            self._listener(self.step_at(sigma), self.steps, self.scores[-1])

    def _come_to(self, sigma: float) -> None:
        if sigma != self._now.sigma:
            self._before, self._now = self._now, _Level(sigma)

    def _keep(self, rows: Rows, move: torch.Tensor, after: torch.Tensor) -> None:
        level = self._now
        for kept, values in (
            (level.text, rows.text), (level.x, rows.x), (level.move, move), (level.after, after),
        ):  # fmt: skip
            kept.extend(values.detach())

    def _known(self, rows: Rows) -> torch.Tensor | None:
        """How far these very latents moved at this noise level, if they did."""
        seen = self._now.alike(rows)
        if seen is None:
            return None
        same = seen.text & (rows.x[:, None] == seen.x).flatten(2).all(2)  # [R, P]
        if not same.any(1).all():
            return None
        return torch.stack([self._now.move[seen.index[best]] for best in same.int().argmax(1)])

    def _earlier(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """What the level before left for each row, `[R, ...]`, and for which there is one `[R]`.

        A call does not say which tile or window it denoises; the latent itself does: it goes on
        from the one of the level before that it is most like.
        """
        moves, seen = torch.zeros_like(rows.x, dtype=torch.float32), self._before.alike(rows)
        if seen is None:
            return moves, torch.zeros(len(rows.x), dtype=torch.bool, device=rows.x.device)
        pairs = rows.x.flatten(1)[:, None], seen.x.flatten(1)[None]
        likeness = torch.cosine_similarity(*pairs, dim=2).masked_fill(~seen.text, -1)  # [R, P]
        most, best = likeness.max(1)
        for row, (alike, index) in enumerate(zip(most.tolist(), best.tolist(), strict=True)):
            if alike > SAME_PLACE:
                moves[row] = self._before.after[seen.index[index]]
        return moves, most > SAME_PLACE


def step_at(sigma: float, starts: Sequence[float]) -> int:
    """Index of the sampler's step that a noise level belongs to.

    Args:
        sigma: of a call; samplers of higher order also call between the steps.
        starts: sigma at the start of each step, falling.
    """
    return sum(sigma <= start * (1 + 1e-6) for start in starts[1:])


def mean_by_picture(scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Scores `[B]`, on the CPU, of pictures that rows draw; NaN where no row draws a picture.

    Args:
        scores: `[R]`.
        image: `[R]` which picture each row draws.
    """
    scores, image = scores.detach().float().cpu(), image.cpu()
    several = torch.zeros(int(image.max()) + 1)
    sums, counts = (several.index_add(0, image, each) for each in (scores, scores * 0 + 1))
    return sums / counts


def _like(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return rows.view(-1, *[1] * (x.ndim - 1))
