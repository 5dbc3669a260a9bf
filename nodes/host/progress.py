"""Scores on the node while it works."""

from __future__ import annotations

import torch
from server import PromptServer

from ...dpt_core.corrector import Corrector


class ShowScores:
    """A listener that writes step and score onto a node, and in the end what was done.

    Args:
        node_id: of the node.

    Attributes:
        scores: by step, the scores of its first call, at its own noise level.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self.scores: dict[int, list[float]] = {}

    def __call__(self, step: int, steps: int, scores: torch.Tensor) -> None:
        self.scores.setdefault(step, scores.tolist())
        values = " ".join(f"{score:.3f}" for score in scores.tolist())
        show(self._node_id, f"step {step + 1} of {steps}, score {values}")

    def finished(self, run: Corrector) -> None:
        if not run.corrected:
            text = (
                f"nothing corrected: none of the {run.steps} steps lies between start_percent and "
                "end_percent. With so little noise left (a low denoise) there is nothing to gain"
            )
        else:
            first, last = run.scores[0].mean(), run.scores[-1].mean()
            done = f"corrected {len(run.corrected)} of {run.steps} steps"
            text = f"done: {first:.2f} → {last:.2f}, {done}"
        show(self._node_id, text)


def show(node_id: str, text: str) -> None:
    """Write a line onto a node; nothing happens where no server runs."""
    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(text, node_id)
