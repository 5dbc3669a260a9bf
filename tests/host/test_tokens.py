"""Transformers of the host: gradients, corrections too small to see, and what is refused."""

from __future__ import annotations

import torch
from dpt_pack.nodes.host.calls import ModelCall
from probe import probe
from tiny_transformers import (
    TINY,
    adapter_for,
    every_family,
    shape_for,
    text_for,
    tiny_transformer,
)

SIGMA = 0.7


def look_at(family, look, model=None, adapter=None, **options):
    """Let `look(scorer, apply_model, call, rows)` see one call of a tiny model."""
    model = model or tiny_transformer(family)
    options = {"sigma": SIGMA, "size": shape_for(family), **options}
    positive = options.pop("positive", None) or text_for(family, 1)
    negative = options.pop("negative", None) or text_for(family, 2, tokens=9)
    seen = []

    def once(*args) -> None:
        seen.append(look(*args))

    probe(model, adapter or adapter_for(family), positive, negative, once, **options)
    assert len(seen) == 1
    return seen[0]


def gradient_of(family, **options) -> torch.Tensor:
    """The score's gradient at one call."""

    def look(scorer, apply_model, call, rows) -> torch.Tensor:
        return scorer.gradients(apply_model, call, rows, call.x[rows.index])[1]

    return look_at(family, look, **options)


def differs(scorer, apply_model, call, rows) -> float:
    """How far the gradient is from central differences (of fourth order) along itself, relative."""
    x = call.x[rows.index]
    _, gradient = scorer.gradients(apply_model, call, rows, x)
    norms = gradient.flatten(1).norm(dim=1)
    assert norms.min() > 0

    def score_at(far: float) -> torch.Tensor:
        unit = gradient / norms.view(-1, *[1] * (x.ndim - 1))
        moved = call.x.clone()
        moved[rows.index] = x + far * unit
        there = ModelCall(moved, call.sigma, call.options, call.inputs)
        return scorer.scores(apply_model, there, rows).double()

    found = []
    for far in (0.03, 0.01, 0.003):  # the adapter has kinks: one of them lies beyond
        near, wide = score_at(far) - score_at(-far), score_at(2 * far) - score_at(-2 * far)
        found.append(((8 * near - wide) / (12 * far) - norms).abs() / norms)
    return float(torch.stack(found).amin(0).max())


@every_family
def test_gradients_agree_with_differences(family):
    for tap in TINY[family].taps:
        adapter = adapter_for(family, tap)
        assert look_at(family, differs, adapter=adapter) <= 1e-3
