"""A correction too small to see gives what the chain gives without it, whatever the chain."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from chains import CHAINS, Chain, chain_of, prompted
from dpt_pack.dpt_core.correction import MODES
from runs import corrected, distance
from spies import check_texts, texts_watched
from tiny_models import tiny_adapter

BATCHES = (1, 2, 3)
VANISHING = 1e-6


@pytest.fixture(scope="module")
def adapter():
    return tiny_adapter()


@cache
def without(name: str, batch: int) -> torch.Tensor:
    """What a chain gives without a correction."""
    chain = chain_of(name)
    return chain.run(chain.patch(chain.model(), batch), batch)


def run(chain: Chain, adapter, batch: int, first: bool = False, **settings) -> tuple:
    """What a chain gives with a correction in it, and the scores."""
    model = chain.model()
    if first:
        model, scores = corrected(model, adapter, **settings)
        return chain.run(chain.patch(model, batch), batch), scores
    model, scores = corrected(chain.patch(model, batch), adapter, **settings)
    return chain.run(model, batch), scores


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHAINS)
def test_a_vanishing_correction_changes_nothing(name, mode, batch, adapter):
    """And every row is pushed to the text that it attends to."""
    chain = chain_of(name)
    with texts_watched(chain.model()) as pairs:
        found, scores = run(chain, adapter, batch, strength=VANISHING, mode=mode)
    assert scores, "nothing was corrected"
    assert distance(found, without(name, batch)) <= 1e-4
    check_texts(pairs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, chain in CHAINS.items() if chain.first])
def test_our_node_may_stand_first(name, mode, adapter):
    found, scores = run(chain_of(name), adapter, 2, first=True, strength=VANISHING, mode=mode)
    assert scores, "nothing was corrected"
    assert distance(found, without(name, 2)) <= 1e-4


@pytest.mark.parametrize("name", ["easycache", "lazycache"])
def test_the_caches_skip_something(name):
    """Else their rows above would show nothing."""
    chain = chain_of(name)
    assert distance(without(name, 1), chain.run(chain.model(), 1)) > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", BATCHES[1:])
def test_context_windows_correct(mode, batch, adapter):
    # Lagged moves nothing in the first step: of three steps too little would be left to see.
    chain = replace(chain_of("context windows"), run=prompted(dict, steps=6))
    settings = {"strength": 40.0, "mode": mode, "step": "annealed"}
    found, scores = run(chain, adapter, batch, **settings)
    assert scores
    plain = chain.run(chain.patch(chain.model(), batch), batch)
    assert distance(found, plain) > 1e-3
