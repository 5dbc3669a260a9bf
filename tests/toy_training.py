"""A training run of milliseconds that depends on everything a real one depends on."""

from __future__ import annotations

import csv
import os
import signal

import torch
from torch import nn
from torch.utils.data import Dataset

from dpt_core.training.config import LoopConfig


class Noise(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(index))


class Regression(nn.Module):
    """A loss that depends on data, weights, dropout and random numbers."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.calls, self.stop_at = 0, stop_at

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"error": (self.layers(batch) - torch.randn(len(batch), 1)).square().mean()}


CONFIG = LoopConfig(steps=12, batch_size=3, accumulate=2, ema=0.9, save_every=5, warmup=2)


def losses(folder) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))
