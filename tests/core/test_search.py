"""Search: who is dropped when, and that the winner is the picture of its seed alone."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from dpt_core.correction import Correction
from dpt_core.demo.load import load_demo
from dpt_core.demo.model import FOLDER
from dpt_core.evaluation.cost import count_operations
from dpt_core.generation import Sampling, generate, generate_latents
from dpt_core.reading import latent_scores
from dpt_core.search import READ_AT, Pool, Search

PROMPTS = ["a red circle left of a blue square", "two green triangles"]
SEEDS = [4, 60]


@pytest.mark.parametrize(
    ("search", "steps", "plan"),
    [
        (Search(), 20, {6: 1}),
        (Search(2), 20, {6: 1}),
        (Search(4, 0.35, stages=2), 20, {4: 2, 7: 1}),
        (Search(8, 0.3, stages=3), 20, {2: 4, 4: 2, 6: 1}),
        (Search(4, keep=2), 20, {6: 2}),
        (Search(4, decide_after=0.0), 20, {1: 1}),
        (Search(4, decide_after=1.0), 20, {20: 1}),
        (Search(8, 0.3, stages=3), 1, {1: 1}),
    ],
)
def test_plan(search, steps, plan):
    assert search.plan(steps) == plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates must be a whole number from 1 to 64; got 0"),
        ({"decide_after": 1.5}, "decide_after must be a number from 0 to 1; got 1.5"),
        ({"candidates": 2, "keep": 3}, r"keep \(3\) must not exceed candidates \(2\)"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Search(**settings)


def test_the_worse_are_dropped():
    pool = Pool(Search(4, 0.5, stages=2), pictures=2, steps=8)
    assert [step for step in range(8) if pool.is_read(step)] == [1, 3, 7]
    everyone = torch.arange(8)
    pool.note(
        1, torch.tensor([0.1, 0.4, 0.3, 0.2, 0.5, 0.5, 0.5, 0.6]), everyone // 4, everyone % 4
    )
    pool.come_to(1)
    assert pool.alive.all()
    pool.come_to(2)
    assert pool.alive.tolist() == [[False, True, True, False], [True, False, False, True]]
    pool.note(3, torch.tensor([0.2, 0.6]), 0, torch.tensor([1, 2]))
    pool.note(3, torch.tensor([0.7, float("nan")]), 1, torch.tensor([0, 3]))
    assert pool.kept().tolist() == [[2], [0]]
    assert pool.dropped.tolist() == [[2, 4, 0, 2], [0, 2, 2, 4]]
    assert pool.scores[0].tolist() == pytest.approx([0.1, 0.2, 0.6, 0.2])


def test_several_scores_of_a_step_count_as_their_mean():
    pool = Pool(Search(2), pictures=1, steps=4)
    pool.note(0, torch.tensor([0.4, 0.5]), 0, torch.tensor([0, 1]))
    pool.note(0, torch.tensor([0.8]), 0, torch.tensor([0]))
    assert pool.curves[0].tolist() == [pytest.approx([0.6, 0.5])]


def test_nothing_to_choose_by():
    with pytest.raises(ValueError, match="no score was read"):
        Pool(Search(), pictures=1, steps=4).come_to(4)


@pytest.fixture(scope="module")
def demo():
    return load_demo(FOLDER)


@pytest.fixture
def draw(demo):
    """Draw the prompts with a scheduler."""
    pipeline, adapter = demo.pipeline, demo.checkpoint.adapter
    plain = pipeline.scheduler

    def run(seeds, correction=None, search=None, scheduler="DDIMScheduler", steps=4):
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(plain.config)
        prompts = PROMPTS if len(seeds) == len(PROMPTS) else PROMPTS[:1] * len(seeds)
        return generate(pipeline, prompts, seeds, Sampling(steps, 2.5, correction), adapter, search)

    yield run
    pipeline.scheduler = plain


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In decibels, of bytes; 100 where they are equal."""
    error = np.square(one.astype(float) - other).mean()
    return 10 * np.log10(255**2 / error) if error else 100.0


@pytest.mark.parametrize(
    ("scheduler", "correction"),
    [
        ("DDIMScheduler", Correction(end_percent=0.5)),
        ("DPMSolverMultistepScheduler", Correction(end_percent=0.3, mode="exact")),
        ("DPMSolverMultistepScheduler", None),
        ("EulerAncestralDiscreteScheduler", None),
    ],
)
def test_the_winner_is_the_picture_of_its_seed(draw, scheduler, correction):
    found = draw(SEEDS, correction, Search(3, 0.5, stages=2), scheduler)
    alone = draw(found.seeds, correction, scheduler=scheduler)
    assert psnr(found.pictures, alone.pictures) >= 50
    assert found.candidates.shape == (3, 2)
    assert found.seeds != SEEDS


def test_one_candidate_is_the_plain_picture(draw):
    correction = Correction(end_percent=0.5)
    found, plain = draw(SEEDS, correction, Search(1)), draw(SEEDS, correction)
    assert found.seeds == SEEDS
    assert np.array_equal(found.pictures, plain.pictures)


def test_the_scores_that_decide_are_of_the_clean_prediction(draw, demo):
    """In the last step the clean prediction is the picture, nearly."""
    found = draw([5], None, Search(2, 1.0))
    pipeline, adapter = demo.pipeline, demo.checkpoint.adapter
    latents = generate_latents(pipeline, PROMPTS[:1] * 2, [5, 6], Sampling(4, 2.5))
    read = latent_scores(pipeline, adapter, latents, PROMPTS[:1] * 2, READ_AT, draws=1, seed=0)
    assert found.candidates[:, 0] == pytest.approx(read.numpy(), abs=0.05)
    assert abs(float(read[0] - read[1])) > 0.1


def test_the_dropped_cost_nothing(draw):
    """One third of the steps is drawn twice, or all of them; text and pixels never are."""
    one = count_operations(lambda: draw([5], steps=9))
    early = count_operations(lambda: draw([5], steps=9, search=Search(2, 0.33)))
    late = count_operations(lambda: draw([5], steps=9, search=Search(2, 1.0)))
    assert early - one < 0.45 * (late - one)
    assert late < 2 * one


def test_redrawn_until_it_holds(draw):
    search = Search(2, 0.2, keep=2, minimum=1.0, tries=2)
    found = draw([5], None, search, steps=2)
    assert len(found.pictures) == len(found.seeds) == 2
    first = draw([5], None, Search(2, 0.2, keep=2), steps=2)
    again = draw([7], None, Search(2, 0.2, keep=2), steps=2)
    of_both = sorted([*first.scores[-1], *again.scores[-1]], reverse=True)
    assert found.scores[-1] == pytest.approx(of_both[:2], abs=1e-5)
    content = Search(2, 0.2, keep=2, minimum=-1.0, tries=2)
    assert draw([5], None, content, steps=2).seeds == first.seeds
