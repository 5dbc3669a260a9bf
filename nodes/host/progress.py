"""Scores on the node while it works."""

from __future__ import annotations

import math

import torch
from server import PromptServer

from ...dpt_core.corrector import Corrector
from ...dpt_core.plots import sparkline

LIVE = "dpt_live"
"""The event that tells the front end what goes on inside a subgraph."""


class ShowScores:
    """A listener that writes the mean score and its curve onto a node, in the end what was done.

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
        means = self._means()
        text = f"step {step + 1} of {steps}: score {means[-1]:.2f}" if means else "score unknown"
        if len(means) > 1:
            text += f" {direction(means[-2], means[-1])} {sparkline(means)}"
        show(self._node_id, text, text)

    def _means(self) -> list[float]:
        means = [sum(scores) / len(scores) for scores in self.scores.values()]
        return [mean for mean in means if math.isfinite(mean)]

    def finished(self, run: Corrector) -> None:
        if not run.corrected:
            short = "nothing corrected"
            text = (
                f"nothing corrected: none of the {run.steps} steps lies between start_percent and "
                "end_percent. With so little noise left (a low denoise) there is nothing to gain"
            )
        else:
            first, last = run.scores[0].mean(), run.scores[-1].mean()
            done = f"corrected {len(run.corrected)} of {run.steps} steps"
            curve = sparkline(self._means())
            text = f"done: {first:.2f} → {last:.2f}, {done} {curve}".rstrip()
            short = f"done: {first:.2f} → {last:.2f} {curve}".rstrip()
        show(self._node_id, text, short)


def direction(before: float, now: float, same: float = 0.005) -> str:
    """An arrow: up, down, or level where the two read the same."""
    if abs(now - before) < same:
        return "→"
    return "↑" if now > before else "↓"


def show(node_id: str, text: str, outside: str = "") -> None:
    """Write a line onto a node; nothing happens where no server runs.

    Args:
        node_id: of the node; in a subgraph `5:3`, node 3 inside node 5.
        text: the line.
        outside: a shorter one for the subgraphs around the node, for who has not opened them. The
            host would write it across their sockets, so `web/js/live.js` shows it.
    """
    if (server := getattr(PromptServer, "instance", None)) is None:
        return
    server.send_progress_text(text, node_id)
    around = str(node_id).split(":")[:-1] if outside else []
    for depth in range(len(around)):
        told = {"node": ":".join(around[: depth + 1]), "text": outside}
        server.send_sync(LIVE, told, server.client_id)
