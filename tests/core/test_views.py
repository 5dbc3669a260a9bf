"""Views of training pictures, and the further negatives beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from dpt_core.demo.scenes import demo_scenes
from dpt_core.losses import MatchingPairs, recognition_loss
from dpt_core.negatives import hard_negatives
from dpt_core.paraphrases import reordered
from dpt_core.training.adapter_run import prepared
from dpt_core.training.data.datasets import MatchingRow
from dpt_core.training.data.rows import (
    GroundingRows,
    split_held_out,
    whole,
    with_negatives,
)
from dpt_core.training.data.views import WITHOUT_BOXES, swapped, with_views
from dpt_core.training.features import OTHERS, NoisedExamples
from dpt_core.training.recipe import RunSettings

SCENES = demo_scenes(60)
VIEWS = 4


@pytest.fixture(scope="module")
def seen():
    return with_views(SCENES, VIEWS)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("a red circle left of a blue square", "a red circle right of a blue square"),
        ("on the Right, a dog; on its left, a cat", "on the Left, a dog; on its right, a cat"),
        ("a bright light upright on leftovers", "a bright light upright on leftovers"),
        ("a red circle above a blue square", "a red circle above a blue square"),
    ],
)
def test_left_and_right_change_places(text, mirrored):
    assert swapped(text) == mirrored
    assert swapped(mirrored) == text


def test_every_picture_that_is_trained_on_is_seen_in_several_ways(seen):
    rest, held = split_held_out(SCENES)
    training, told_by = split_held_out(seen)
    assert len(training.matching) == VIEWS * len(rest.matching)
    assert len(training.grounding) == VIEWS * len(rest.grounding)
    assert {row.image for row in told_by.matching} == {row.image for row in held.matching}
    aside = set(told_by.names())
    assert not aside & {whole(name) for name in training.names()}
    assert len({row.image for row in training.matching}) == VIEWS * len(rest.matching)


def test_captions_and_negatives_are_true_of_what_is_seen(seen):
    """The judge-free way: a view shows what its picture shows, mirrored or not."""
    rows = {row.image: row for row in SCENES.matching}
    mirrored = reordered_ones = 0
    for row in seen.matching:
        own = rows[whole(row.image)]
        texts = (own.caption, *own.negative_captions)
        turned = tuple(map(swapped, texts))
        said = (row.caption, *row.negative_captions)
        ways = [each for each in (texts, turned) if all(map(same, said, each))]
        assert ways
        reordered_ones += sum(text not in texts + turned for text in said)
        assert tuple(map(whole, row.negative_images)) == own.negative_images
        picture = seen.images(row.image, "").tensor
        before = seen.images(own.image, "").tensor
        if row.image != own.image and texts != turned:
            flipped = ways == [turned]
            # The heavier side of what is drawn says whether it was mirrored.
            assert (_side(picture) * _side(before) < 0) == flipped or abs(_side(before)) < 0.1
            mirrored += flipped
    assert mirrored > 10 and reordered_ones > 20


def same(said: str, text: str) -> bool:
    return said in (text, reordered(text))


def _side(picture: torch.Tensor) -> float:
    """Where the things are, from -1 (left) to 1."""
    background = picture[:, 0, 0, None, None]
    mass = (picture - background).abs().sum((0, 1))
    return float((mass * torch.linspace(-1, 1, len(mass))).sum() / mass.sum())


def test_boxes_follow(seen):
    whole_boxes, boxes = GroundingRows(SCENES.grounding, SCENES.images), seen.grounding
    colours = {}
    for index, row in enumerate(SCENES.grounding):
        colours[row.image, row.caption] = _colour(whole_boxes[index])
    examples = GroundingRows(boxes, seen.images)
    for index, row in enumerate(boxes):
        example = examples[index]
        assert (example.boxes > 0).all() and (example.boxes < 1).all()
        wanted = colours.get((whole(row.image), row.caption))
        wanted = colours[whole(row.image), swapped(row.caption)] if wanted is None else wanted
        torch.testing.assert_close(_colour(example), wanted, atol=0.15, rtol=0)
        assert row.spans == (((0, len(row.caption)),),) * len(row.boxes)


def _colour(example) -> torch.Tensor:
    """Of what is in the middle of the first box."""
    x, y = (example.boxes[0, :2] * example.image.shape[-1]).long()
    return example.image[:, y, x]


def test_without_boxes_little_is_cut_off():
    rows = tuple(MatchingRow(f"{n}/0", f"caption {n}", (), (), "") for n in range(30))
    data = replace(SCENES, matching=rows, grounding=())
    seen = with_views(data, 3)
    sides = {
        seen.images._views[row.image].side for row in seen.matching if row.image != whole(row.image)
    }
    assert min(sides) >= WITHOUT_BOXES and len(sides) > 10


def test_one_view_is_the_data_itself():
    assert with_views(SCENES, 1) is SCENES


def test_the_same_again():
    assert with_views(SCENES, 3, seed=1).digest() == with_views(SCENES, 3, seed=1).digest()
    assert (
        with_views(SCENES, 3, seed=1).images._views != with_views(SCENES, 3, seed=2).images._views
    )


def test_further_negatives_come_with_the_examples():
    data = with_negatives(SCENES, "auto", hard_negatives).data
    row = data.matching[0]
    assert row.negative_captions == SCENES.matching[0].negative_captions  # the data's own win
    assert data.others[row.caption] and row.caption not in data.others[row.caption]
    assert set(data.others[row.caption]) <= set(data.texts())
    for index in range(20):
        example = NoisedExamples(data, 0, 20)[index]
        assert len(example.others) == OTHERS
        made = set(data.others[example.matching.captions[0]])
        assert len(made & set(example.others)) == min(OTHERS, len(made))
    turned = with_views(data, 2).others
    assert turned.keys() >= set(map(swapped, data.others))


def test_the_published_recipe_has_neither():
    data = with_negatives(SCENES, "auto", hard_negatives).data
    plain = prepared(data, RunSettings(recipe="published"))
    assert plain.matching == data.matching and not plain.others
    assert NoisedExamples(plain, 0, 1)[0].others == ()
    ours = prepared(data, RunSettings())
    assert len(ours.matching) > 2 * len(data.matching) and ours.others


def test_only_few_pictures_need_views():
    row = SCENES.matching[0]
    for count, views in ((2000, 3), (3000, 2), (3001, 1)):
        rows = tuple(row._replace(image=f"{n}", negative_images=()) for n in range(count))
        data = replace(SCENES, matching=rows, grounding=())
        trained = split_held_out(data)[0]
        ours = split_held_out(prepared(data, RunSettings()))[0]
        assert len(ours.matching) == views * len(trained.matching)


def test_levels_lean_to_low_noise():
    for lean, mean in ((1.0, 500), (2.0, 333)):
        examples = NoisedExamples(SCENES, 0, 400, lean=lean)
        levels = torch.tensor([examples[n].level for n in range(400)])
        assert levels.min() >= 0 and levels.max() < 1000
        assert abs(float(levels.float().mean()) - mean) < 50


def test_recognition_is_among_further_texts():
    torch.manual_seed(0)
    queries = normalize(torch.randn(10, 3, 8), dim=-1)
    pairs = MatchingPairs.from_passes(queries, torch.randn(2, 3, 8))
    alone = recognition_loss(pairs, 5.0)
    said = queries[0, :1]  # what the first image's query says: a wrong text that looks right
    assert recognition_loss(pairs, 5.0, said) > alone
    alike = MatchingPairs(*pairs[:2], pairs.texts[:1, :1].expand(2, 3, 8))
    assert recognition_loss(alike, 5.0, pairs.texts[0, :1]) == 0  # what is true is no rival
