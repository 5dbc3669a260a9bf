"""Self-correction inside the host's samplers.

Two of the host's wrappers carry it, so it stacks with other packs and works with any sampler: one
around a sampling run (its state), one around the model call (the correction itself). A run's state
lives in the run's model options and ends with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch
from comfy.patcher_extension import WrappersMP

from ...dpt_core.correction import Correction
from ...dpt_core.corrector import Corrector, mean_by_picture
from .adapter import LoadedAdapter
from .backbones.registry import check_backbone
from .calls import ModelCall
from .rows import ConditionalRows, Targets
from .scoring import Scorer

logger = logging.getLogger(__name__)

KEY = "dpt_self_correction"


class Listener(Protocol):
    """Told what happens in a run."""

    def began(self, start: str) -> None:
        """Before the first call, with what runs have in common that begin from the same noise, for
        the same text, in the same steps."""
        ...

    def __call__(self, step: int, steps: int, scores: torch.Tensor) -> None:
        """After each corrected call: step, number of steps and scores `[B]`."""
        ...

    def finished(self, run: Corrector) -> None:
        """After the run."""
        ...


def with_self_correction(
    model: Any,
    adapter: LoadedAdapter | None,
    correction: Correction,
    listener: Listener | Callable | None = None,
) -> Any:
    """A model that corrects itself while any sampler samples it.

    A second correction replaces the first; strength 0 or no adapter takes it off.

    Args:
        model: the host's ModelPatcher; not changed.
        adapter: the adapter, or None.
        correction: what to do.
        listener: told the scores as they come.

    Raises:
        ValueError: see :func:`wrapped`.
    """
    model = without_self_correction(model)
    if adapter is None or correction.strength == 0:
        return model
    return wrapped(model, adapter, KEY, SelfCorrector(adapter, correction, listener))


class Wrappers(Protocol):
    """What stands around a sampling run, and around each of its model calls."""

    def sample(self, executor: Any, guider: Any, sigmas: torch.Tensor, extra_args: dict, *args):
        """Around the run."""
        ...

    def apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around a call."""
        ...


def wrapped(model: Any, adapter: LoadedAdapter, key: str, wrappers: Wrappers) -> Any:
    """A clone of a model with wrappers around its runs and calls, the adapter loaded beside it.

    Raises:
        ValueError: see :func:`~nodes.host.backbones.registry.check_backbone`.
    """
    check_backbone(model, adapter.config)
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, key, wrappers.sample)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, wrappers.apply_model)
    model.set_additional_models(key, [adapter.patcher])
    return model


def without_self_correction(model: Any) -> Any:
    """A model without a correction that an earlier node put on it; the model itself if none did."""
    kinds = (WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL)
    if model is None or not any(model.get_wrappers(kind, KEY) for kind in kinds):
        return model
    model = model.clone()
    for kind in kinds:
        model.remove_wrappers_with_key(kind, KEY)
    model.set_additional_models(KEY, [])
    return model


class SelfCorrector:
    """The wrappers. Holds what was asked for, and of a run only where it ended."""

    def __init__(
        self, adapter: LoadedAdapter, correction: Correction, listener: Listener | Callable | None
    ) -> None:
        self._adapter = adapter
        self._correction = correction
        self._listener = listener
        self._ends: dict[float, int] = {}
        """Sigma at which a run ended part-way → steps taken by then: the next run counts on."""

    def sample(self, executor: Any, guider: Any, sigmas: torch.Tensor, extra_args: dict, *args):
        """Around a run: check the wiring before the first step, keep the run's state."""
        mask = args[3] if len(args) > 3 else None
        first, last = float(sigmas[0]), float(sigmas[-1])
        run = Run(guider, self._adapter, self._correction, mask, self._listener)
        taken = self._ends.get(first, 0)
        run.corrector.begin(sigmas[:-1].tolist(), taken)
        extra_args["model_options"]["transformer_options"][KEY] = run
        result = executor(guider, sigmas, extra_args, *args)
        if last > 0:
            self._ends[last] = taken + run.corrector.steps
        if not run.corrector.corrected:
            logger.warning(
                "DPT: no step was corrected; start_percent, end_percent and every_n_steps leave "
                "none of the %d steps",
                run.corrector.steps,
            )
        if finished := getattr(self._listener, "finished", None):
            finished(run.corrector)
        return result

    def apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around the model call: correct the conditional rows if the call is due."""
        call = ModelCall.of_arguments(*args, **inputs)
        run = call.options.get(KEY)
        if run is None:
            return call.run(executor)
        due = run.corrector.is_due(float(call.sigma[0]))
        rows = run.targets.rows_of(call) if due or not run.began else None
        if rows is not None:
            run.begin(call, rows)
        if rows is None or not due:
            return call.run(executor)
        return run.corrected(executor, call, rows)


class Run:
    """One sampling run.

    Args:
        guider: the host's guider, with its conditioning processed.
        adapter, correction, listener: as wired.
        mask: the denoise mask `[B, 1, H, W]`, or None.

    Attributes:
        began: whether its first call has come.
    """

    def __init__(
        self,
        guider: Any,
        adapter: LoadedAdapter,
        correction: Correction,
        mask: torch.Tensor | None,
        listener: Listener | Callable | None,
    ) -> None:
        guests = [
            entry["gligen"][1].model
            for entries in guider.conds.values()
            for entry in entries or ()
            if "gligen" in entry
        ]
        self.scorer = Scorer(adapter, guider.inner_model, guests)
        self.targets = Targets(guider.conds, adapter.config, self.scorer.backbone)
        self.corrector = Corrector(correction, self.scorer.noise, listener)
        self.began = False
        self._mask, self._listener = mask, listener

    def begin(self, call: ModelCall, rows: ConditionalRows) -> None:
        """Tell the listener from where the run begins, at its first call."""
        told = None if self.began else getattr(self._listener, "began", None)
        self.began = True
        if told is None:
            return
        digest = hashlib.sha256()
        for each in (call.x[rows.index], rows.text, torch.tensor(self.corrector.starts)):
            digest.update(each.detach().float().cpu().contiguous().numpy().tobytes())
        told(digest.hexdigest())

    def read(self, executor: Any, call: ModelCall) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A call's result, which stays as it is, and the pictures' scores `[B]` read on the way.

        None in their place where no row draws the prompt, or the pass never came to the tap.
        """
        rows = self.targets.rows_of(call)
        if rows is None:
            return call.run(executor), None
        self.begin(call, rows)
        denoised, scores = self.scorer.read_along(executor, call, rows)
        return denoised, None if scores is None else mean_by_picture(scores, rows.image)

    def corrected(self, executor: Any, call: ModelCall, rows: ConditionalRows) -> torch.Tensor:
        """A call's result with its conditional rows corrected.

        The sampler steps from its own latent: with `D(x) = c_skip x + c_out F(x)` it is given
        `D(x̂) − c_skip x̂ + c_skip x`.
        """
        passed = HostRows(self.scorer, executor, call, rows, self._mask)
        todo, x = self.corrector.correct(passed), passed.x
        if todo.prediction is None:
            moved = call.x.clone()
            moved[rows.index] = x + todo.move
            denoised = call.run(executor, moved).clone()
        else:
            denoised = todo.prediction
        kept = self.scorer.noise.kept
        rebased = denoised[rows.index] - kept(passed.sigma, x + todo.move) + kept(passed.sigma, x)
        if todo.clean is not None:
            rebased += todo.clean
        denoised[rows.index] = rebased.to(denoised)
        return denoised


class HostRows:
    """The conditional rows of a call, for the :class:`~dpt_core.corrector.Corrector`."""

    def __init__(
        self,
        scorer: Scorer,
        executor: Any,
        call: ModelCall,
        rows: ConditionalRows,
        mask: torch.Tensor | None,
    ) -> None:
        self._scorer, self._executor, self._call, self._rows = scorer, executor, call, rows
        self.x, self.sigma = call.x[rows.index], call.sigma[rows.index]
        self.text, self.image = rows.text, rows.image
        self.mask = None if mask is None else mask_rows(mask, rows, self.x.shape[2:])

    def gradients(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._scorer.gradients(self._executor, self._call, self._rows, x)

    def predictions(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        return self._scorer.predictions(self._executor, self._call, self._rows, x)


def mask_rows(mask: torch.Tensor, rows: ConditionalRows, size: torch.Size) -> torch.Tensor | None:
    """The denoise mask for each conditional row, cut to the row's area; None for tiles.

    A call does not say where a tile lies. The sampler itself puts back what the mask protects.
    """
    parts = []
    for image, area in zip(rows.image.tolist(), rows.areas, strict=True):
        part = mask[image % len(mask)]
        for axis in range(len(area) // 2 if area else 0):
            part = part.narrow(axis + 1, area[axis + len(area) // 2], area[axis])
        if part.shape[1:] != size:
            return None
        parts.append(part)
    return torch.stack(parts)
