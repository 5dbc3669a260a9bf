"""Prompts put together from word lists."""

from __future__ import annotations

from collections import Counter

import pytest

from dpt_core.phrases import take_apart
from dpt_core.scene_prompts import SceneWords, scene_prompts, words_of
from dpt_core.shapes.caption import COLOURS, SHAPES, parse


def test_the_parts_are_what_the_grammar_reads():
    made = scene_prompts(SceneWords(), 300, seed=3)
    for each in made:
        parts = take_apart(each.text)
        found = [
            (p.thing, [a.text for a in p.attributes], p.count, list(p.span)) for p in parts.phrases
        ]
        said = [
            (p["thing"], [a["text"] for a in p["attributes"]], p["count"], p["span"])
            for p in each.parts["phrases"]
        ]
        assert found == said, each.text
        relations = [(r.subject, r.object, r.text, r.kind) for r in parts.relations]
        assert relations == [tuple(r.values()) for r in each.parts["relations"]] or not relations
        assert bool(relations) == bool(each.parts["relations"])
        assert sum(p["count"] for p in each.parts["phrases"]) <= 4
    assert len({each.text for each in made}) == 300


def test_the_shapes_world_draws_what_is_made_of_its_words():
    captions = [parse(each.text) for each in scene_prompts(SceneWords(SHAPES, COLOURS), 90, seed=1)]
    assert set(Counter(caption.category for caption in captions).values()) == {30}


def test_seeds_and_lists():
    words = SceneWords(("fox", "old oak"), ("", "orange"), (), most=2)
    made = scene_prompts(words, 12)
    assert made[:5] == scene_prompts(words, 5) and made != scene_prompts(words, 12, seed=1)
    texts = {each.text for each in made}
    assert {"two orange foxes", "an old oak"} & texts and not any(" of " in text for text in texts)
    assert words_of(" a dog,cat\n\ncat , fox") == ("a dog", "cat", "fox")


@pytest.mark.parametrize(
    ("words", "count", "said"),
    [
        (lambda: SceneWords(things=()), 1, "things must have a word"),
        (lambda: SceneWords(attributes=()), 1, "attributes must have a word"),
        (lambda: SceneWords(("dog",), ("red",)), 1, "two different things"),
        (lambda: SceneWords(most=0), 1, r"most must be in \[1, 12\]"),
        (SceneWords, 0, "count must be at least 1"),
    ],
)
def test_what_makes_no_prompts(words, count, said):
    with pytest.raises(ValueError, match=said):
        scene_prompts(words(), count)
