"""Optimisers: which weights are whose, and a run that goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_training import CONFIG, Noise, Regression, losses

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.config import AdapterConfig
from dpt_core.demo.transformer import new_transformer
from dpt_core.training.config import LoopConfig
from dpt_core.training.loop import Interrupted, train
from dpt_core.training.optimizers import FASTER, MuonAndAdamW, new_optimizer
from dpt_core.training.recipe import RECIPES

MUON = replace(CONFIG, optimizer="muon")


class InBlocks(Regression):
    """Its layers are blocks."""

    def __init__(self, **more):
        super().__init__(**more)
        self.blocks = self.__dict__["_modules"].pop("layers")

    @property
    def layers(self):
        return self.blocks


def test_muon_takes_the_matrices_of_blocks():
    optimizer = new_optimizer(new_transformer(), MUON)
    assert isinstance(optimizer, MuonAndAdamW)
    muon, adamw = optimizer.param_groups
    assert {each.ndim for each in muon["params"]} == {2}
    # Of each of 8 blocks: four maps of attention and two of feed-forward, for picture and text;
    # the last block gives nothing for the text.
    assert len(muon["params"]) == 8 * 12 - 3
    assert muon["lr"] == pytest.approx(FASTER * MUON.learning_rate)
    assert adamw["lr"] == MUON.learning_rate


def test_muon_takes_the_matrices_of_an_adapter():
    """Two of attention and two of feed-forward in each layer of the encoder, two more of the
    decoder's cross-attention; embeddings and answers are AdamW's."""
    adapter = DiscriminativeAdapter(
        AdapterConfig(in_channels=8, text_width=8, width=8, heads=2, encoder_layers=2)
    )
    muon, _ = new_optimizer(adapter, MUON).param_groups
    assert len(muon["params"]) == 2 * 4 + 6
    assert RECIPES["recommended"].optimizer == "muon" and RECIPES["published"].optimizer == "adamw"


def test_every_parameter_moves_once():
    task = InBlocks()
    optimizer = new_optimizer(task, MUON)
    seen = [id(each) for group in optimizer.param_groups for each in group["params"]]
    assert sorted(seen) == sorted(id(each) for each in task.parameters())
    before = [each.detach().clone() for each in task.parameters()]
    for each in task.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    for old, new in zip(before, task.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path):
    whole = train(InBlocks(), Noise(), MUON, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(InBlocks(stop_at=8), Noise(), MUON, tmp_path / "broken")
    resumed = train(InBlocks(), Noise(), MUON, tmp_path / "broken")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    plain = train(InBlocks(), Noise(), CONFIG, tmp_path / "adamw")
    assert not torch.equal(plain.layers[0].weight, whole.layers[0].weight)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="optimizer must be one of adamw, muon; got 'sgd'"):
        LoopConfig(steps=1, batch_size=1, optimizer="sgd")
