"""Search in the host's samplers: the winner is what its seed gives alone."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import comfy.samplers
import pytest
import torch
from dpt_pack.dpt_core.correction import PRESETS, Correction
from dpt_pack.dpt_core.search import Search
from dpt_pack.nodes.host.search import search_latents
from dpt_pack.nodes.ksampler import KSampler
from dpt_pack.nodes.search_ksampler import SearchKSampler, report, summary
from runs import corrected, distance, latents, sample
from tiny_models import tiny_adapter, tiny_model, tiny_text, with_control
from tiny_transformers import PRESENT, adapter_for, latent_for, text_for, tiny_transformer

STRENGTH = 500.0
WANTED = Correction(STRENGTH, 0.0, 0.6, 1, "lagged", "published")


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return tiny_model("sd15")


@pytest.fixture(scope="module")
def adapter():
    with torch.inference_mode():
        return tiny_adapter()


Node = type("Node", (SearchKSampler,), {"hidden": SimpleNamespace(unique_id="1")})
"""The node with the hidden inputs that the host's executor sets."""
Plain = type("Plain", (KSampler,), {"hidden": Node.hidden})

THREE = Search(3, 0.5)


def find(model, adapter, search=THREE, correction=WANTED, latent=None, **run):
    """Search with the host's KSampler; what was found and how many rows the model denoised."""
    latent, rows = latent or latents(), []

    def draw(model, seed):
        return {**latent, "samples": sample(model, latent=latent, seed=seed, **run)}

    count = model.model.diffusion_model.register_forward_pre_hook(
        lambda network, inputs: rows.append(len(inputs[0]))
    )
    try:
        return search_latents(model, adapter, correction, search, latent, 7, draw), rows
    finally:
        count.remove()


def alone(model, adapter, seed, correction=WANTED, **run) -> torch.Tensor:
    """What DPT KSampler draws from a seed."""
    if correction.strength:
        settings = {name: getattr(correction, name) for name in ("mode", "end_percent", "step")}
        model, _ = corrected(model, adapter, correction.strength, **settings)
    return sample(model, seed=seed, **run)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "heun",
                                     "uni_pc", "euler_cfg_pp", "dpm_adaptive", "dpm_fast", "ddim",
                                     "res_multistep_ancestral", "dpmpp_3m_sde"])  # fmt: skip
def test_the_winner_is_the_picture_of_its_seed(sampler, model, adapter):
    found, _ = find(model, adapter, sampler=sampler)
    ((kept,),) = found.kept
    assert torch.equal(kept.latent["samples"], alone(model, adapter, kept.seed, sampler=sampler))


@pytest.mark.parametrize("correction", [Correction(0.0), PRESETS["published"]])
def test_every_correction(correction, model, adapter):
    found, _ = find(model, adapter, correction=correction)
    ((kept,),) = found.kept
    assert torch.equal(kept.latent["samples"], alone(model, adapter, kept.seed, correction))


def test_the_best_is_kept_and_the_others_are_dropped(model, adapter):
    found, rows = find(model, adapter, Search(4, 0.5, stages=2))
    (pool,) = found.pools
    assert pool.alive.sum() == 1
    assert sorted(pool.dropped[0].tolist()) == [0, 1, 1, 2]
    first, second = pool.decisions[0][0], pool.decisions[1][0]
    assert set(first.topk(2).indices.tolist()) == set((~second.isnan()).nonzero()[:, 0].tolist())
    winner = int(pool.alive[0].nonzero())
    assert second.nan_to_num(nan=-2).argmax() == winner
    assert found.kept[0][0].seed == 7 + winner
    passes = 4 + 2 + 1 + 1  # a step of four, one of two, two of the last
    again = 4 + 2 + 1  # clean predictions of those alive, for the positive prompt only
    assert sum(rows) == 2 * passes + again
    free = torch.stack([each[0] for each in pool.curves.values()])
    assert free.shape[1] == 4 and not torch.equal(free[0], first)


def test_a_batch_has_a_winner_for_every_picture(model, adapter):
    latent = latents(3, seed=5)
    mask = torch.ones(3, 1, 16, 16)
    mask[1, ..., 8:] = 0
    latent["noise_mask"] = mask
    run = {"latent": latent, "positive": tiny_text(1, 3), "denoise": 0.9}
    found, rows = find(model, adapter, Search(3, 0.5, keep=2), **run)
    assert len({tuple(each.seed for each in best) for best in found.kept}) > 1
    by_seed = {}
    for picture, best in enumerate(found.kept):
        assert best[0].score >= best[1].score
        for kept in best:
            if kept.seed not in by_seed:
                by_seed[kept.seed] = alone(model, adapter, kept.seed, **run)
            assert distance(kept.latent["samples"][0], by_seed[kept.seed][picture]) <= 1e-5
    assert sum(rows) == 2 * (3 * 3 * 2 + 3 * 2 * 2) + 3 * 3 + 3 * 2
    whole = found.latent()
    assert whole["samples"].shape[0] == 6
    assert torch.equal(whole["noise_mask"][2:4].flatten(0, 1), mask[1].expand(2, 16, 16))


def test_control_net(model, adapter):
    positive = with_control(tiny_text(1))
    found, _ = find(model, adapter, positive=positive)
    ((kept,),) = found.kept
    assert torch.equal(kept.latent["samples"], alone(model, adapter, kept.seed, positive=positive))


def test_redrawn_until_it_holds(model, adapter):
    found, _ = find(model, adapter, Search(2, 0.25, minimum=1.0, tries=2))
    assert found.seeds == [[7, 8], [9, 10]]
    scores = [float(pool.scores[pool.alive]) for pool in found.pools]
    assert found.kept[0][0].score == max(scores)
    found, _ = find(model, adapter, Search(2, 0.25, minimum=-1.0, tries=2))
    assert found.seeds == [[7, 8]]


def test_no_step_leaves_the_latent(model, adapter):
    latent = latents(seed=3)
    found, rows = find(model, adapter, latent=latent, denoise=0.0)
    assert torch.equal(found.latent()["samples"], latent["samples"])
    assert not rows
    assert summary(found, 3) == "nothing to draw: the denoise leaves no step"
    assert report(found).shape == (1, 512, 768, 3)


def test_the_node(model, adapter):
    inputs = {
        "model": model, "seed": 7, "steps": 4, "cfg": 7.5, "sampler_name": "euler",
        "scheduler": "normal", "positive": tiny_text(1), "negative": tiny_text(2),
        "latent_image": latents(), "denoise": 1.0, "adapter": adapter, "preset": "balanced",
    }  # fmt: skip
    search = {"candidates": 3, "decide_after": 0.5, "keep": 2}
    latent, scores, picture = Node.execute(**inputs, **search).result
    assert latent["samples"].shape == (2, 4, 16, 16)
    assert scores == sorted(scores, reverse=True) and len(scores) == 2
    assert picture.shape == (1, 512, 768, 3) and 0 <= picture.min() < picture.max() <= 1
    plain, _ = Plain.execute(**{**inputs, "seed": 7}).result
    one, _, _ = Node.execute(**inputs, candidates=1).result
    assert torch.equal(one["samples"], plain["samples"])


def test_inputs_are_those_of_the_search():
    schema = SearchKSampler.define_schema()
    names = [each.id for each in schema.inputs]
    assert names[-6:] == list(inspect.signature(Search).parameters)
    assert next(each for each in schema.inputs if each.id == "adapter").optional is False
    assert set(comfy.samplers.KSampler.SAMPLERS) == set(
        next(each for each in schema.inputs if each.id == "sampler_name").options
    )


@pytest.mark.parametrize("family", [name for name in ("flux", "z_image", "sd3") if name in PRESENT])
@pytest.mark.parametrize("correction", [Correction(0.0), WANTED])
def test_search_on_transformers(family, correction):
    """The winner is what its seed gives alone, without and with guidance."""
    with torch.inference_mode():
        transformer, reader = tiny_transformer(family), adapter_for(family)
        run = {
            "positive": text_for(family, 1), "negative": text_for(family, 2),
            "latent": latent_for(family), "cfg": 1.0 if family == "flux" else 4.0,
        }  # fmt: skip
        found, rows = find(transformer, reader, correction=correction, **run)
        ((kept,),) = found.kept
        drawn = alone(transformer, reader, kept.seed, correction, **run)
        assert torch.equal(kept.latent["samples"], drawn)
        assert -1 <= kept.score <= 1 and rows
