"""Optimisers of a training run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .config import LoopConfig

FASTER = 3.0
"""Muon's rate against AdamW's, both in AdamW's terms. Chosen for the demo's transformer; adapters
have it, too."""

BLOCKS = ("blocks.", "encoder.layers.", "decoder.layers.")
"""What blocks of transformers are called: those of diffusers, and the adapter's."""


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for all else, as one optimiser with two groups.

    Args:
        matrices: parameters `[out, in]`.
        others: all other parameters.
        config: of the run.
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], config: LoopConfig
    ) -> None:
        muon = torch.optim.Muon(
            matrices,
            lr=FASTER * config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._both = (muon, torch.optim.AdamW(others, **_adamw(config)))
        super().__init__([each.param_groups[0] for each in self._both], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step of both."""
        for each, group in zip(self._both, self.param_groups, strict=True):
            # Anew each time: loading a state puts others in their place.
            each.state, each.param_groups = self.state, [group]
            each.step()


def new_optimizer(task: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """The optimiser that a run's settings ask for, of a task's parameters that are trained.

    Muon (Keller Jordan, 2024) takes the matrices in blocks; modulations by the timestep, which
    stand in norms, embeddings and what lies outside blocks are AdamW's.
    """
    trained = [(name, each) for name, each in task.named_parameters() if each.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW([each for _, each in trained], **_adamw(config))
    groups: tuple[list[nn.Parameter], ...] = [], []
    for name, each in trained:
        inside = any(block in name for block in BLOCKS)
        matrix = each.ndim == 2 and inside and "norm" not in name
        groups[0 if matrix else 1].append(each)
    return MuonAndAdamW(*groups, config)


def _adamw(config: LoopConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "betas": config.betas,
        "eps": config.epsilon,
        "weight_decay": config.weight_decay,
    }
