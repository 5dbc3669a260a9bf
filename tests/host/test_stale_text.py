"""Nodes between the prompt and the sampler that change the embedding: which text counts then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from chains import plain_model
from dpt_pack.nodes import text_encode
from dpt_pack.nodes.host.encode import encode_prompt
from runs import corrected, distance, sample
from spies import texts_watched
from tiny_models import tiny_adapter, tiny_clip, tiny_model

import nodes
from nodes import (
    CLIPTextEncode,
    ConditioningAverage,
    ConditioningConcat,
    ConditioningZeroOut,
)


@pytest.fixture(scope="module")
def adapter():
    return tiny_adapter()


@pytest.fixture(scope="module")
def clip():
    with torch.inference_mode():
        return tiny_clip()


@pytest.fixture(scope="module")
def other(clip):
    return encode_prompt(clip, "a blue ball")


@pytest.fixture(scope="module")
def real(clip):
    return encode_prompt(clip, "a red cube on a table")


def average(to: list, away: list, strength: float) -> list:
    return ConditioningAverage().addWeighted(to, away, strength)[0]


def texts_used(model, adapter, positive: list) -> list[torch.Tensor]:
    """The text vectors `[D]` that a run is scored with."""
    moved, _ = corrected(model, adapter)
    with texts_watched(model) as pairs:
        sample(moved, positive, steps=2)
    return [text for _, scored in pairs for text in scored]


def vector(conditioning: list) -> torch.Tensor:
    return conditioning[0][1]["dpt_text"]["eos_hidden"][0]


def test_an_average_is_pushed_to_what_is_left(adapter, clip, other, real):
    """Of the other prompt nothing is left at strength 0: as if the real one had been encoded."""
    moved, scores = corrected(plain_model(), adapter)
    averaged = sample(moved, average(other, real, 0.0))
    assert scores
    (alone,) = CLIPTextEncode().encode(clip, "a red cube on a table")
    assert distance(averaged, sample(moved, alone)) <= 1e-5
    assert distance(averaged, sample(plain_model(), alone)) > 1e-3


def test_an_average_at_full_strength_is_the_prompt_itself(adapter, other, real):
    used = texts_used(plain_model(), adapter, average(real, other, 1.0))
    assert used
    assert all(torch.allclose(text, vector(real), atol=1e-5) for text in used)


def test_a_real_average_is_pushed_between_the_two(adapter, other, real):
    middle = (vector(real) + vector(other)) / 2
    used = texts_used(plain_model(), adapter, average(real, other, 0.5))
    assert used
    assert all(torch.allclose(text, middle, atol=1e-4) for text in used)


def test_an_average_without_a_vector_that_fits_is_refused(adapter, other, real):
    """SD 2.x cannot do with the pooled output."""
    moved, scores = corrected(tiny_model("sd21"), adapter)
    with pytest.raises(ValueError, match="ConditioningAverage.*DPT_TextEncode"):
        sample(moved, average(other, real, 0.0))
    assert not scores


@pytest.mark.parametrize("family", ["sd15", "sd21"])
def test_no_prompt_is_no_aim(family, adapter, real):
    model = tiny_model(family)
    nothing = ConditioningZeroOut().zero_out(real)[0]
    moved, scores = corrected(model, adapter)
    assert torch.equal(sample(moved, nothing), sample(model, nothing))
    assert not scores


@pytest.mark.parametrize("family", ["sd15", "sd21"])
def test_a_scaled_prompt_keeps_its_aim(family, adapter, real):
    if not hasattr(nodes, "ConditioningMultiply"):
        pytest.skip("this ComfyUI has no node that multiplies a conditioning")
    (scaled,) = nodes.ConditioningMultiply().multiply(real, 1.3)
    used = texts_used(tiny_model(family), adapter, scaled)
    assert used
    aims = torch.stack([torch.cosine_similarity(text, vector(real), dim=0) for text in used])
    assert (aims > 1 - 1e-5).all()


def test_of_joined_prompts_the_first_counts_and_that_is_said(adapter, other, real, caplog):
    (joined,) = ConditioningConcat().concat(real, other)
    with caplog.at_level("WARNING"):
        used = texts_used(tiny_model("sd21"), adapter, joined)
    assert all(torch.equal(text, vector(real)) for text in used)
    assert caplog.text.count("ConditioningConcat") == 1


@pytest.mark.parametrize("words, said", [(60, True), (30, False)])
def test_of_a_long_prompt_the_first_tokens_count_and_that_is_said(words, said, clip, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(text_encode, "show", lambda node, text: lines.append(text))
    node = type("Node", (text_encode.TextEncode,), {"hidden": SimpleNamespace(unique_id="1")})
    (encoded,) = node.execute(clip, "red cube " * words).result
    assert encoded[0][0].shape[1] == (154 if said else 77)
    assert any("the first 77 tokens" in line for line in lines) == said
