"""Score-weighted tuning of any model that somebody can run: draw, score, tune; called again, it
goes on.

As :mod:`.reward_tuning`, in one round. A run lives in a folder: `settings.json`, `drawn` (a file
for each prompt), `training` (:mod:`.loop`), `lora.safetensors`, `development` (a file for each
strength) and `development.json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from ..files import write_json, write_tensors
from ..lora import strengthened
from ..losses import score_weighted_loss
from .backbone import LEVELS
from .features import in_shards
from .loop import CHECKPOINT as STATE
from .loop import Interrupted, train
from .observer import Observer
from .reward_task import METHOD, ScoredPicture, ScoredPictures
from .rewards import Reading, RewardPrompt
from .state import read_losses, settle
from .tuning_settings import TuneSettings

DEVELOPMENT = 8
"""Every so many-th prompt is not trained on but tells whether the LoRA helps."""


class Studio(Protocol):
    """A model with an adapter that reads it, as tuning sees it.

    Attributes:
        device: where the LoRA is trained.
        lora: its parameters, trained; without effect at first.
    """

    device: torch.device
    lora: nn.Module

    def draw(self, prompt: str, seed: int, count: int) -> torch.Tensor:
        """`[count, ...]` latents as a VAE encodes them, on the CPU, with the LoRA as it is now."""
        ...

    def scores(self, latents: torch.Tensor, prompt: str) -> torch.Tensor:
        """Alignment scores of pictures, `[N]` on the CPU, read on the untuned model."""
        ...

    def errors(self, latents: torch.Tensor, prompt: str) -> torch.Tensor:
        """The untuned model's denoising errors of pictures, `[N]` on the CPU."""
        ...

    def denoised(
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        texts: Sequence[str],
        tuned: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean predictions `[R, ...]`, what they should be, and how a prediction of the network
        counts in them, `[R, 1, ...]`; with the LoRA and its gradient, or without both."""
        ...


class StudioTask(nn.Module):
    """The loss of score-weighted tuning; see :class:`~.reward_task.ScoreWeightedTask`."""

    def __init__(self, studio: Studio, settings: TuneSettings) -> None:
        super().__init__()
        self.lora, self._settings = studio.lora, settings
        self._studio = [studio]  # in a list: no part of the checkpoint

    def forward(self, batch: list[ScoredPicture]) -> dict[str, torch.Tensor]:
        (studio,), device = self._studio, self._studio[0].device
        clean = torch.stack([each.latent for each in batch])
        alone = round(self._settings.anchored * len(batch))
        texts = ["" if row < alone else each.prompt for row, each in enumerate(batch)]
        advantage = torch.tensor([each.advantage for each in batch], device=device)
        advantage[:alone] = 0.0
        noise = torch.randn(clean.shape)
        levels = torch.randint(self._settings.earliest, LEVELS, (len(batch),))
        before, target, unit = studio.denoised(clean, noise, levels, texts, tuned=False)
        now, _, _ = studio.denoised(clean, noise, levels, texts, tuned=True)
        loss = score_weighted_loss(now / unit, before / unit, target / unit, advantage)
        return {"score weighted": loss}


@dataclass(frozen=True)
class Tuned:
    """A run that is done.

    Attributes:
        lora: under its names in checkpoints, at the strength that was best.
        strength: that strength, of the LoRA as it was learned.
        rows: losses by step.
        before, after: mean score of the development prompts' pictures, from the same seeds.
        prompts: those prompts.
        pictures: their latents without the LoRA and with it, `[2, P, ...]`.
    """

    lora: dict[str, torch.Tensor]
    strength: float
    rows: Sequence[Mapping[str, float]]
    before: float
    after: float
    prompts: Sequence[str]
    pictures: torch.Tensor


@dataclass
class TuningRun:
    """One run.

    Args:
        prompts: what is drawn.
        folder: where the run lives.
        settings: of the run.
        about: what tells model and adapter from others, JSON by name.
        observer: looks on.
    """

    prompts: Sequence[str]
    folder: Path
    settings: TuneSettings
    about: Mapping[str, Any] = field(default_factory=dict)
    observer: Observer = field(default_factory=Observer)

    def draw(self, studio: Studio) -> ScoredPictures:
        """Draw and score what is missing; before anything is trained.

        Raises:
            dpt_core.training.state.RunError: the folder holds another run.
            dpt_core.training.loop.Interrupted: the observer stopped it; call again to go on.
            ValueError: there are too few prompts.
        """
        prompts = list(dict.fromkeys(self.prompts))
        if len(prompts) < 2:
            raise ValueError(
                f"expected at least 2 different prompts, one of them to tell by; got {len(prompts)}"
            )
        settings = asdict(self.settings) | {"method": METHOD, "prompts": prompts, **self.about}
        ours = json.loads(json.dumps(settings))
        settle(self.folder / "settings.json", ours, "Delete it, or take another run name", free=())
        self._aside = prompts[::DEVELOPMENT]
        rest = [prompt for place, prompt in enumerate(prompts) if place % DEVELOPMENT]

        def make(indices: range) -> dict[str, torch.Tensor]:
            self._check(f"after drawing for {indices.start} of {len(rest)} prompts")
            prompt = rest[indices.start]
            seed = self._seed(str(indices.start))
            latents = studio.draw(prompt, seed, self.settings.candidates)
            read = Reading.of(
                studio.scores(latents, prompt),
                lambda: studio.errors(latents, prompt),
                self.settings.errors,
            )
            return {"latents": latents.half(), **read._asdict()}

        def progress(done: int) -> None:
            self.observer.progress(f"drew for {done} of {len(rest)} prompts", done, len(rest))

        made = list(in_shards(self.folder / "drawn", len(rest), 1, make, progress))
        latents, *read = (
            torch.stack([one[key] for one in made]) for key in ("latents", *Reading._fields)
        )
        worth = Reading(*read).joined(self.settings.errors)
        return ScoredPictures(latents, worth, [RewardPrompt(prompt) for prompt in rest])

    def train(self, studio: Studio, drawn: ScoredPictures) -> None:
        """Train the LoRA, or take it up from the folder.

        Raises:
            dpt_core.training.loop.Interrupted: the observer stopped it; call again to go on.
        """
        path, total = self.folder / "lora.safetensors", self.settings.steps
        if path.exists():
            studio.lora.load_state_dict(load_file(path))
            return

        def watch(row: Mapping[str, float]) -> bool:
            step = int(row["step"])
            loss = row["score weighted"]
            self.observer.progress(f"step {step} of {total}, loss {loss:.4f}", step, total)
            return self.observer.stopped()

        with torch.random.fork_rng():
            task = StudioTask(studio, self.settings)
            train(
                task, drawn, self.settings.loop(), self.folder / "training",
                collate=list, alone=studio.device, watch=watch,
            )  # fmt: skip
        write_tensors(path, studio.lora.state_dict())

    def compare(
        self,
        lora: Mapping[str, torch.Tensor],
        tuned: Callable[[dict[str, torch.Tensor]], Studio],
        untuned: Studio,
    ) -> Tuned:
        """Draw the development prompts without the LoRA and with it, from the same seeds.

        Args:
            lora: as it was learned.
            tuned: a model that draws with a LoRA.
            untuned: the model without; it scores.
        """
        sides, figures = [], []
        for strength in (0.0, *self.settings.strengths):
            studio = tuned(strengthened(lora, strength)) if strength else untuned
            side = self._side(strength, studio)
            one = [untuned.scores(latent[None], text)
                   for latent, text in zip(side, self._aside, strict=True)]  # fmt: skip
            sides.append(side)
            figures.append(float(torch.cat(one).mean()))
        before, *after = figures
        best = max(range(len(after)), key=after.__getitem__)
        strength = self.settings.strengths[best]
        told = {"before": before, "strengths": self.settings.strengths, "after": after}
        write_json(self.folder / "development.json", told)
        rows = read_losses(self.folder / "training" / STATE)
        pictures = torch.stack((sides[0], sides[1 + best]))
        made = strengthened(lora, strength)
        return Tuned(made, strength, rows, before, after[best], self._aside, pictures)

    def _side(self, strength: float, studio: Studio) -> torch.Tensor:
        """Latents of the development prompts, `[P, ...]`."""
        path = self.folder / "development" / f"{strength:g}.safetensors"
        if not path.exists():
            self._check("while comparing")
            what = f"with the LoRA at strength {strength:g}" if strength else "without the LoRA"
            self.observer.progress(f"drawing {what}", 0, 1)
            drawn = [studio.draw(text, self._seed(text), 1) for text in self._aside]
            write_tensors(path, {"pictures": torch.cat(drawn)})
        return load_file(path)["pictures"]

    def _seed(self, what: str) -> int:
        return random.Random(f"{self.settings.seed}-{what}").randrange(2**31)

    def _check(self, where: str) -> None:
        if self.observer.stopped():
            raise Interrupted(f"stopped {where}")
