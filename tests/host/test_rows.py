"""Which rows of a call are corrected, and that nothing else depends on how a call is cut."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import pytest
import torch
from chains import STEPS, Chain, areas, chain_of, plain_model, plain_run, prompted
from comfy_extras import nodes_pag
from dpt_pack.dpt_core.correction import MODES
from runs import STRENGTH, call, corrected, distance, latents, sample
from spies import InputSpy, check_texts, texts_watched
from tiles import tiled
from tiny_models import tiny_adapter, tiny_text

BORDERLINE = ("sag", "nag", "context windows", "areas", "perp neg", "tiles, all a call")
"""Chains whose calls hold rows in another order or number than the plain graph's."""


@pytest.fixture(scope="module")
def adapter():
    return tiny_adapter()


def strength_in(mode: str) -> float:
    """A prediction goes further than a latent."""
    return 1.0 if mode == "guidance" else STRENGTH


@pytest.mark.parametrize("mode", ["exact", "lagged"])
@pytest.mark.parametrize("name", BORDERLINE)
def test_negative_rows_stay(name, mode, adapter):
    """And the rows of every positive prompt move."""
    chain, spy = chain_of(name), InputSpy()
    model, _ = corrected(spy.watch(chain.patch(chain.model(), 2)), adapter, mode=mode)
    chain.run(model, 2)
    moved = {tuple(text.tolist()) for rows, texts in spy.moves for text in texts[rows]}
    positives = (1, 3, 4) if name == "areas" else (1,)
    assert moved == {
        tuple(tiny_text(seed)[0][1]["pooled_output"][0].tolist()) for seed in positives
    }


@pytest.mark.parametrize("size", [8, 6])
@pytest.mark.parametrize("mode", MODES)
def test_tiles_together_are_as_tiles_apart(mode, size, adapter):
    results = []
    for together in (1, 4):
        tiles = tiled(together, size)(plain_model(), 2)
        moved, scores = corrected(tiles, adapter, strength_in(mode), mode=mode)
        results.append(plain_run(moved, 2))
        assert scores
    moved = distance(results[0], plain_run(tiled(1, size)(plain_model(), 2), 2))
    assert moved > 1e-3
    assert distance(*results) <= 0.01 * moved  # rounding grows on a path that far off


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["sag", "nag", "areas", "tiles, all a call"])
def test_a_batch_equals_single_runs(name, mode, adapter):
    chain, noise = chain_of(name), comfy.sample.prepare_noise(latents(2)["samples"], 7)
    prompts = areas() if name == "areas" else {"positive": tiny_text(1)}

    def run(noise: torch.Tensor) -> torch.Tensor:
        patched = chain.patch(chain.model(), len(noise))
        moved, _ = corrected(patched, adapter, strength_in(mode), mode=mode)
        guider = comfy.samplers.CFGGuider(moved)
        guider.set_conds(prompts["positive"], tiny_text(2))
        guider.set_cfg(7.5)
        sampling = moved.get_model_object("model_sampling")
        return guider.sample(
            noise,
            torch.zeros_like(noise),
            comfy.samplers.sampler_object("euler"),
            comfy.samplers.calculate_sigmas(sampling, "normal", STEPS),
            disable_pbar=True,
            seed=7,
        )

    together = run(noise)
    # Rounding grows on tiles, which go 20% to 45% away; a wrong row would be as far off as that.
    most = 2e-3 if name.startswith("tiles") else 3e-4  # rounding differs by processor
    for row in range(2):
        assert distance(together[row : row + 1], run(noise[row : row + 1])) <= most


@pytest.mark.parametrize("mode", MODES)
def test_each_picture_its_own_prompt(mode, adapter):
    """Also where windows of the batch have their part of the prompts."""
    texts = {"positive": tiny_text(1, batch=3)}
    chain = Chain(chain_of("context windows").patch, prompted(lambda: texts))
    for model in (plain_model(), chain.patch(plain_model(), 3)):
        with texts_watched(model) as pairs:
            chain.run(corrected(model, adapter, mode=mode)[0], 3)
        check_texts(pairs)
        assert len({tuple(text.tolist()) for _, scored in pairs for text in scored}) == 3


@pytest.mark.parametrize("mode", MODES)
def test_a_mixed_prompt_moves_once_a_step(mode, adapter):
    """Areas and the whole picture run in calls of their own; PAG runs each of them again."""
    moved, _ = corrected(plain_model(), adapter, mode=mode)
    perturbed = call(nodes_pag.PerturbedAttentionGuidance, model=moved, scale=3.0)
    with texts_watched(plain_model()) as pairs:
        sample(perturbed, steps=2, **areas())
    assert (
        sum(len(scored) for _, scored in pairs) == (2 - (mode == "lagged")) * 3
    )  # steps × prompts
