"""Search inside the host's samplers: every candidate is a plain run of the host's own sampler.

A candidate runs until candidates are dropped, and is then stopped. One that goes on is sampled once
more from its seed, and the model's answers up to there come from memory: so it is exactly the
picture of its seed, with any sampler, whatever the sampler remembers or draws at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP
from comfy.samplers import calc_cond_batch

from ...dpt_core.correction import Correction
from ...dpt_core.corrector import Corrector, mean_by_picture, step_at
from ...dpt_core.reading import noise_draws
from ...dpt_core.search import READ_AT, Pool, Search
from .adapter import LoadedAdapter
from .backbones.registry import check_backbone
from .calls import PICTURES, ModelCall
from .correction import KEY as CORRECTION
from .correction import Run, with_self_correction
from .noise import SEEDS
from .rows import wanted
from .selection import Latent, join_latents, split_latents

KEY = "dpt_search"

Draw = Callable[[Any, int], Latent]
"""From a model and a seed to a LATENT, as the host's KSampler draws it."""


class Stopped(InterruptProcessingException):
    """Ends a candidate's run where candidates are dropped; for other packs, an interrupt."""


class Answer(NamedTuple):
    """What the host's `calc_cond_batch` answered, and how it left the random numbers."""

    x: torch.Tensor
    sigma: torch.Tensor
    predictions: list[torch.Tensor]
    random: torch.Tensor


@dataclass
class Candidate:
    """One candidate of all pictures: what was computed of it so far.

    Attributes:
        seed: of its noise.
        answers: of the model, in order.
        corrector: its correction, which remembers the last step's moves.
        latent: the finished one.
    """

    seed: int
    answers: list[Answer] = field(default_factory=list)
    corrector: Corrector | None = None
    latent: Latent | None = None


class Kept(NamedTuple):
    """A picture that the search kept.

    Attributes:
        score: its last one.
        seed: what it was drawn from.
        latent: a LATENT of one picture.
    """

    score: float
    seed: int
    latent: Latent


@dataclass
class Found:
    """What a search found.

    Attributes:
        kept: per picture, the best first.
        pools: per try, who was dropped when.
        seeds: per try, the candidates' seeds.
    """

    kept: list[list[Kept]]
    pools: list[Pool]
    seeds: list[list[int]]

    def latent(self) -> Latent:
        """All that was kept as one LATENT, picture by picture."""
        return join_latents([each.latent for best in self.kept for each in best])[0]


def search_latents(
    model: Any,
    adapter: LoadedAdapter,
    correction: Correction,
    search: Search,
    latent: Latent,
    seed: int,
    draw: Draw,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Draw candidates of every picture of a LATENT, drop the worse ones early, finish the best.

    Args:
        model: the host's ModelPatcher; not changed.
        adapter: reads the score, and corrects every candidate.
        correction: how; with strength 0 candidates are drawn plainly.
        search: how many, and when they are dropped.
        latent: what is denoised.
        seed: of the first candidate.
        draw: draws one candidate of all pictures.
        tell: told what is going on.

    Raises:
        ValueError: the adapter does not fit the model, or no score could be read.
    """
    check_backbone(model, adapter.config)
    count = len(latent["samples"])
    found = Found([[] for _ in range(count)], [], [])
    for attempt in range(search.tries):
        missing = [n for n in range(count)
                   if not found.kept[n] or found.kept[n][0].score < search.minimum]  # fmt: skip
        if not missing:
            break
        first = seed + attempt * search.candidates
        round_ = Round(model, adapter, correction, search, missing, first, tell)
        for n, kept in round_.run(count, draw).items():
            falling = sorted(found.kept[n] + kept, key=lambda each: -each.score)
            found.kept[n] = falling[: search.keep]
        if round_.pool is None:  # no steps at all: there is nothing to choose
            break
        found.pools.append(round_.pool)
        found.seeds.append([each.seed for each in round_.candidates])
    return found


class Round:
    """One try: the wrappers around the candidates' runs.

    Args:
        model, adapter, correction, search, tell: see :func:`search_latents`.
        missing: the pictures that are drawn; the others of the batch cost nothing.
        seed: of the first candidate.

    Attributes:
        pool: who is still drawn; None before the first run.
        candidates: all of them.
    """

    def __init__(
        self,
        model: Any,
        adapter: LoadedAdapter,
        correction: Correction,
        search: Search,
        missing: list[int],
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self._adapter, self._correction, self._search = adapter, correction, search
        self._missing, self._tell = missing, tell
        self.pool: Pool | None = None
        self.candidates = [Candidate((seed + k) % SEEDS) for k in range(search.candidates)]
        self._now = self._place = 0
        self._stop = 0
        self._starts: list[float] = []
        self._rereading: int | None = None
        model = model.clone()
        # Around the correction, which sees only the rows that are alive.
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._apply_model)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, self._calc_cond_batch)
        if hasattr(WrappersMP, "PREDICT_NOISE"):  # hosts without decide by the noisy latents
            model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self._predict_noise)
        model = with_self_correction(model, adapter, correction, self._noted).clone()
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self._sample)
        model.set_additional_models(KEY, [adapter.patcher])
        self._model = model

    def run(self, count: int, draw: Draw) -> dict[int, list[Kept]]:
        """Draw all candidates; what is kept of each picture that was missing, the best first.

        Args:
            count: pictures in the batch.
            draw: see :data:`Draw`.
        """
        alive = range(len(self.candidates))
        while True:
            for self._now in alive:
                self._place = 0
                candidate = self.candidates[self._now]
                try:
                    candidate.latent = draw(self._model, candidate.seed)
                except Stopped:
                    continue
                candidate.answers.clear()
                if self.pool is None:
                    whole = split_latents([candidate.latent])
                    return {n: [Kept(0.0, candidate.seed, whole[n])] for n in self._missing}
            if all(self.candidates[k].latent is not None for k in alive):
                return self._kept()
            alive = self._drop()

    def _drop(self) -> list[int]:
        """Drop what is due; who goes on."""
        self.pool.come_to(self._stop)
        self._stop = next(turn for turn in self.pool.turns if turn > self._stop)
        alive = self.pool.alive.any(0).nonzero()[:, 0].tolist()
        for k, candidate in enumerate(self.candidates):
            if k not in alive:
                candidate.answers.clear()
        return alive

    def _kept(self) -> dict[int, list[Kept]]:
        best, scores = self.pool.kept().tolist(), self.pool.scores
        parts = {k: split_latents([self.candidates[k].latent])
                 for n in self._missing for k in best[n]}  # fmt: skip
        return {
            n: [Kept(float(scores[n, k]), self.candidates[k].seed, parts[k][n]) for k in best[n]]
            for n in self._missing
        }

    def _sample(self, executor: Any, guider: Any, sigmas: torch.Tensor, extra_args: dict, *args):
        """Around a run, inside the correction's: a candidate takes up its correction again."""
        options = extra_args["model_options"]["transformer_options"]
        if self.pool is None:
            self._starts = sigmas[:-1].tolist()
            self.pool = Pool(self._search, len(args[1]), len(self._starts))
            self.pool.alive[[n for n in range(len(args[1])) if n not in self._missing]] = False
            self._stop = self.pool.turns[0]
        self._guider, self._original, self._mask = guider, args[2], args[3]
        candidate, run = self.candidates[self._now], options.get(CORRECTION)
        if run is None:
            run = Run(guider, self._adapter, self._correction, None, None)
        elif candidate.corrector is not None:
            run.corrector = candidate.corrector
        candidate.corrector, options[KEY] = run.corrector, run
        return executor(guider, sigmas, extra_args, *args)

    def _calc_cond_batch(
        self, executor: Any, model: Any, conds: list, x: torch.Tensor, sigma: torch.Tensor, *args
    ) -> list[torch.Tensor]:
        """Around every prediction: from memory where it is known; ends the run when it is time."""
        if self._rereading is not None:
            return executor(model, conds, x, sigma, *args)
        answers = self.candidates[self._now].answers
        self._place += 1
        if self._place <= len(answers):
            known = answers[self._place - 1]
            if torch.equal(known.sigma, sigma) and torch.equal(known.x, x):
                torch.set_rng_state(known.random)
                return [each.clone() for each in known.predictions]
            del answers[self._place - 1 :]  # a sampler that does not repeat itself
        if step_at(float(sigma[0]), self._starts) >= self._stop:
            raise Stopped
        predictions = executor(model, conds, x, sigma, *args)
        if self._stop < len(self._starts):
            copies = [each.clone() for each in predictions]
            answers.append(Answer(x.clone(), sigma.clone(), copies, torch.get_rng_state()))
        return predictions

    def _predict_noise(
        self, executor: Any, x: torch.Tensor, sigma: torch.Tensor, model_options: dict, *args
    ) -> torch.Tensor:
        """Around every guided prediction: what it says of the picture is read when it is time."""
        clean = executor(x, sigma, model_options, *args)
        options = model_options["transformer_options"]
        if (step := step_at(float(sigma.max()), self._starts)) + 1 != self._stop:
            return clean
        picture, noise = clean, options[KEY].scorer.noise
        if self._mask is not None:  # outside of it the sampler keeps what was there
            picture = torch.lerp(self._original, clean, self._mask.to(clean))
        again = sigma.new_full((len(clean),), noise.sigma(READ_AT))
        noised = noise.noised(again, picture, noise_draws(picture, 1, 0))  # of all, to compare
        self._rereading = step
        try:
            calc_cond_batch(
                self._guider.inner_model, [wanted(self._guider.conds)], noised, again, model_options
            )
        finally:
            self._rereading = None
        return clean

    def _apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around the model call: only what is alive is denoised; its score is read on the way."""
        call = ModelCall.of_arguments(*args, **inputs)
        alive = self.pool.alive[:, self._now].nonzero()[:, 0]
        pictures = len(self.pool.alive)
        if len(alive) == pictures or call.chunk != pictures:
            return self._read(executor, call)
        rows = torch.arange(len(call.x)).view(-1, pictures)[:, alive].flatten().to(call.x.device)
        part = call.select(rows).with_options(**{PICTURES: alive.tolist()})
        denoised = call.x.clone()
        denoised[rows] = self._read(executor, part).to(denoised)
        return denoised

    def _read(self, executor: Any, call: ModelCall) -> torch.Tensor:
        """A call's result; where the correction does not read the score, it is read here."""
        run, sigma = call.options[KEY], float(call.sigma[0])
        if self._rereading is not None:
            return self._reread(executor, call.with_options(**{CORRECTION: None}).uncached(), run)
        step = step_at(sigma, self._starts)
        corrects = self._correction.strength > 0 and run.corrector.is_due(sigma)
        if corrects:
            return call.run(executor)
        denoised, scores = run.read(executor, call)
        if scores is not None:
            self._noted(step, len(self._starts), scores)
        return denoised

    def _reread(self, executor: Any, call: ModelCall, run: Run) -> torch.Tensor:
        """Note the scores of a call that is made for nothing else; what it returns is not used."""
        rows = run.targets.rows_of(call)
        if rows is not None and (scores := run.scorer.scores(executor, call, rows)) is not None:
            scores = mean_by_picture(scores, rows.image)
            which = (~scores.isnan()).nonzero()[:, 0]
            self.pool.note(self._rereading, scores[which], which, self._now, reread=True)
        return torch.zeros_like(call.x)

    def _noted(self, step: int, steps: int, scores: torch.Tensor) -> None:
        """Keep scores `[B]` of the candidate that is drawn, NaN for pictures without."""
        which = (~scores.isnan()).nonzero()[:, 0]
        self.pool.note(step, scores[which], which, self._now)
        seed = self.candidates[self._now].seed
        self._tell(f"seed {seed}: step {step + 1} of {steps}, score {scores[which].mean():.2f}")
