"""Scores on the node while it works."""

from __future__ import annotations

import torch
from server import PromptServer

from .correction import Listener


def show_scores(node_id: str) -> Listener:
    """A listener that writes step and score onto a node."""

    def listener(step: int, steps: int, scores: torch.Tensor) -> None:
        values = " ".join(f"{score:.3f}" for score in scores.tolist())
        show(node_id, f"step {step + 1} of {steps}, score {values}")

    return listener


def show(node_id: str, text: str) -> None:
    """Write a line onto a node; nothing happens where no server runs."""
    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(text, node_id)
