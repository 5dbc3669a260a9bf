"""Captions that name their things in another order."""

from __future__ import annotations

import pytest

from dpt_core.demo.scenes import demo_scenes
from dpt_core.negatives import meaning
from dpt_core.paraphrases import reordered
from dpt_core.phrases import take_apart


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("a red cube left of a blue ball", "a blue ball right of a red cube"),
        ("the cat under the table", "the table over the cat"),
        ("Two apples and a banana.", "A banana and two apples."),
        ("red apples, green pears and a knife", "a knife, green pears and red apples"),
        ("a picture of a cat and a dog", "a picture of a dog and a cat"),
    ],
)
def test_the_last_thing_comes_first(caption, other):
    assert reordered(caption) == other
    assert meaning(take_apart(other)) == meaning(take_apart(caption))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "three black circles",
        "a cat crawling under a bathtub",  # a bathtub does not crawl over a cat
        "a man riding a horse",
        "a cat left of a dog and above a bird",
        "a green bench and a blue bowl on the table",
        "a woman with a red hat",
    ],
)
def test_what_is_not_certain_stays(caption):
    assert reordered(caption) == caption


def test_most_captions_of_scenes_can_be_said_otherwise():
    captions = [row.caption for row in demo_scenes(200).matching]
    changed = [text for text in captions if reordered(text) != text]
    assert len(changed) > len(captions) / 2
    for text in changed:
        assert meaning(take_apart(reordered(text))) == meaning(take_apart(text))
