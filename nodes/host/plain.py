"""Plain sampling whose score is read on the way."""

from __future__ import annotations

from typing import Any

import torch

from ...dpt_core.correction import Correction
from .adapter import LoadedAdapter
from .calls import ModelCall
from .correction import Listener, Run, without_self_correction, wrapped

KEY = "dpt_plain"


def with_scores_read(model: Any, adapter: LoadedAdapter | None, listener: Listener) -> Any:
    """A model that any sampler samples as if nothing had been done to it, while its score is read.

    A correction that an earlier node put on it is taken off.

    Args:
        model: the host's ModelPatcher; not changed.
        adapter: reads; None for nobody.
        listener: told the scores as they come.

    Raises:
        ValueError: see :func:`~.correction.wrapped`.
    """
    model = without_self_correction(model)
    if adapter is None:
        return model
    return wrapped(model, adapter, KEY, ScoreReader(adapter, listener))


class ScoreReader:
    """The wrappers."""

    def __init__(self, adapter: LoadedAdapter, listener: Listener) -> None:
        self._adapter, self._listener = adapter, listener

    def sample(self, executor: Any, guider: Any, sigmas: torch.Tensor, extra_args: dict, *args):
        """Around a run."""
        run = Run(guider, self._adapter, Correction(strength=0.0), None, self._listener)
        run.corrector.begin(sigmas[:-1].tolist())
        extra_args["model_options"]["transformer_options"][KEY] = run
        result = executor(guider, sigmas, extra_args, *args)
        self._listener.finished(run.corrector)
        return result

    def apply_model(self, executor: Any, *args: Any, **inputs: Any) -> torch.Tensor:
        """Around the model call, which stays as it is."""
        call = ModelCall.of_arguments(*args, **inputs)
        run = call.options.get(KEY)
        if run is None:
            return call.run(executor)
        denoised, scores = run.read(executor, call)
        if scores is not None:
            step = run.corrector.step_at(float(call.sigma[0]))
            self._listener(step, run.corrector.steps, scores)
        return denoised
