"""Scores on the node while it works."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from server import PromptServer

from ...dpt_core.corrector import Corrector
from ...dpt_core.plots import sparkline

LIVE = "dpt_live"
"""The event that tells the front end what goes on inside a subgraph."""

Scores = dict[int, list[float]]
"""Step → scores of the pictures."""

REMEMBERED = 64
"""Plain runs whose scores are kept."""


class ShowScores:
    """A listener that writes the mean score and its curve onto a node, in the end what was done.

    Args:
        node_id: of the node.

    Attributes:
        scores: by step, the scores of its first call, at its own noise level.
        plain: the same of plain sampling from the same noise for the same text, if that ran before.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self.scores: Scores = {}
        self.plain: Mapping[int, list[float]] = {}

    def began(self, start: str) -> None:
        self.plain = PLAIN_RUNS.of(start)

    def __call__(self, step: int, steps: int, scores: torch.Tensor) -> None:
        self.scores.setdefault(step, scores.tolist())
        means = means_of(self.scores)
        text = f"step {step + 1} of {steps}: score {means[-1]:.2f}" if means else "score unknown"
        if len(means) > 1:
            text += f" {direction(means[-2], means[-1])}"
        text += self._beside(step)
        if len(means) > 1:
            text += f" {sparkline(means)}"
        show(self._node_id, text, text)

    def _beside(self, step: int) -> str:
        """What plain sampling scored at a step, where that is known."""
        means = means_of({step: self.plain[step]}) if step in self.plain else []
        return f" (plain {means[0]:.2f})" if means else ""

    def finished(self, run: Corrector) -> None:
        if not run.scores:
            short = "nothing corrected"
            text = (
                f"nothing corrected: none of the {run.steps} steps lies between start_percent and "
                "end_percent. With so little noise left (a low denoise) there is nothing to gain"
            )
        else:
            first, last = run.scores[0].mean(), run.scores[-1].mean()
            done = f"corrected {len(run.corrected)} of {run.steps} steps"
            curve = sparkline(means_of(self.scores))
            short = f"done: {first:.2f} → {last:.2f}{self._beside(max(self.scores))}"
            text = f"{short}, {done} {curve}".rstrip()
            short = f"{short} {curve}".rstrip()
        show(self._node_id, text, short)


class ShowPlainScores(ShowScores):
    """The same of plain sampling, whose scores are remembered."""

    def began(self, start: str) -> None:
        self._start = start

    def finished(self, run: Corrector) -> None:
        means = means_of(self.scores)
        if not means:
            show(self._node_id, "plain: no score was read", "plain")
            return
        PLAIN_RUNS.keep(self._start, self.scores)
        text = f"plain: {means[0]:.2f} → {means[-1]:.2f} {sparkline(means)}"
        show(self._node_id, text, text)


class PlainRuns:
    """Scores of plain runs, by what they began from; the oldest are forgotten."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Scores] = OrderedDict()

    def keep(self, start: str, scores: Scores) -> None:
        self._runs[start] = dict(scores)
        self._runs.move_to_end(start)
        while len(self._runs) > REMEMBERED:
            self._runs.popitem(last=False)

    def of(self, start: str) -> Mapping[int, list[float]]:
        """Empty where no plain run began so."""
        return self._runs.get(start, {})


PLAIN_RUNS = PlainRuns()
"""Of this process."""


def means_of(scores: Mapping[int, list[float]]) -> list[float]:
    """Mean scores by step, without those that are not finite."""
    means = [sum(each) / len(each) for each in scores.values()]
    return [mean for mean in means if math.isfinite(mean)]


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
