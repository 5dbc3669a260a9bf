"""Prompts taken apart, and hard negatives made of the parts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dpt_core.negatives import hard_negatives, meaning
from dpt_core.phrases import Phrase, Span, put, take_apart
from dpt_core.shapes.caption import imagine, parse, same, word
from dpt_core.shapes.judge import judge
from dpt_core.shapes.scene import compose, render

EXPECTED = Path(__file__).parent / "data" / "phrases.txt"
"""What 100 prompts of ../shared/prompts name, written by hand."""


def test_the_shapes_world_is_taken_apart_exactly():
    rng = random.Random(5)
    for _ in range(1000):
        caption = imagine(rng)
        wording = word(caption, rng)
        parts = take_apart(wording.text)
        found = [
            (p.count, p.texts("size"), p.texts("colour"), p.thing, p.span) for p in parts.phrases
        ]
        said = [
            (m.count, (m.size,) if m.size else (), (m.colour,), m.shape, Span(*span))
            for m, span in zip(caption.mentions, wording.spans, strict=True)
        ]
        assert found == said, wording.text
        relations = [(each.subject, each.object, each.kind) for each in parts.relations]
        assert relations == ([(0, 1, caption.relation)] if caption.relation else [])
        assert not parts.rest


def test_published_prompts_are_taken_apart(shared_prompts):
    right, total, wrong = 0, 0, []
    for place, expected in expectations().items():
        text = prompt_at(shared_prompts, place)
        found = {in_short(phrase) for phrase in take_apart(text).phrases}
        right, total = right + len(expected & found), total + len(expected | found)
        wrong += [(place, expected ^ found)] if expected != found else []
    assert len(expectations()) == 100
    assert right / total >= 0.95, wrong


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("a black and white cat on two very large red cars", "1|black, white|cat 2|large, red|car"),
        ("The wall is red and the door is light blue.", "-|red|wall -|light blue|door"),
        ("a photo of a man in black with a pair of old shoes", "1|black|man 2|old|shoe"),
        ("a snow covered hill, three buses and some knives", "1|snow covered|hill 3||bus -||knife"),
        ("A red, white and blue kite over a glass of water",
         "1|red, white, blue|kite 1||glass -||water"),
        ("a smiling woman sitting in a living room", "1|smiling|woman 1||living room"),
        ("", ""),
        ("???", ""),
        ("masterpiece, best quality, 1girl", None),
    ],
)  # fmt: skip
def test_english_is_taken_apart(prompt, things):
    parts = take_apart(prompt)
    if things is not None:
        assert " ".join(map(in_short, parts.phrases)) == things
    for phrase in parts.phrases:
        assert parts.words(phrase.head).lower().startswith(phrase.thing[:3])


def test_relations_and_what_is_left():
    parts = take_apart('A man in a hat on a horse is eating "soup" next to a dog without a collar')
    named = [
        (parts.phrases[r.subject].thing, r.kind, parts.phrases[r.object].thing)
        for r in parts.relations
    ]
    assert named[:3] == [
        ("man", "wearing", "hat"),
        ("man", "on", "horse"),
        ("man", "next to", "dog"),
    ]
    assert [phrase.denied for phrase in parts.phrases] == [False] * 4 + [True]
    assert [parts.words(span) for span in parts.rest] == ['eating "soup"', "without"]


def test_words_are_put_in_the_places_of_others():
    prompt = "A red apple and an orange cat"
    parts = take_apart(prompt)
    first, second = (phrase.attributes[0] for phrase in parts.phrases)
    swapped = put(prompt, [(first.span, second.text), (second.span, first.text)])
    assert swapped == "An orange apple and a red cat"
    assert put("a unicorn", [(Span(2, 9), "old horse")]) == "an old horse"


def test_hard_negatives_of_the_shapes_world_are_wrong_for_the_picture():
    rng = random.Random("negatives")
    valid = total = 0
    for index in range(60):
        caption = imagine(rng)
        text, picture = word(caption, rng).text, render(compose(caption, rng))
        negatives = hard_negatives(text, seed=index)
        assert negatives, text
        for each in negatives:
            other = parse(each)
            total += 1
            valid += not same(other, caption) and not judge(picture, other).holds
    assert total > 300 and valid / total >= 0.99


def test_hard_negatives_of_published_prompts(shared_prompts):
    texts = [prompt_at(shared_prompts, place) for place in expectations()]
    given = [hard_negatives(text) for text in texts]
    assert sum(map(bool, given)) >= 0.8 * len(given)
    for text, negatives in zip(texts, given, strict=True):
        assert len({*negatives, text}) == len(negatives) + 1
        for each in negatives:
            assert meaning(take_apart(each)) != meaning(take_apart(text))


def test_hard_negatives_change_one_thing_of_every_kind():
    found = hard_negatives("two red dogs left of a big blue car with an old door", limit=40)
    assert "two blue dogs left of a big red car with an old door" in found
    assert "two red dogs right of a big blue car with an old door" in found
    assert "three red dogs left of a big blue car with an old door" in found
    assert any("cats left of" in each for each in found)
    assert "two red dogs left of a small blue car with an old door" in found
    assert any("a young door" in each for each in found)


def test_hard_negatives_are_the_same_again_and_limited():
    caption = "a red car and a blue bench"
    assert hard_negatives(caption, seed=3) == hard_negatives(caption, seed=3)
    assert len(hard_negatives(caption, limit=2)) == 2 and hard_negatives(caption, limit=0) == []
    assert hard_negatives("quietly") == []
    # The same two things whichever is named first: nothing to swap.
    assert "a blue ball and a red ball" not in hard_negatives("a red ball and a blue ball")


def expectations() -> dict[str, set[str]]:
    lines = EXPECTED.read_text("utf-8").splitlines()
    rows = [line.split(" | ", 1) for line in lines if line and not line.startswith("#")]
    return {place: {each.strip() for each in things.split(";")} for place, things in rows}


def prompt_at(folder: Path, place: str) -> str:
    name, line = place.split()
    return (folder / name).read_text("utf-8").splitlines()[int(line) - 1]


def in_short(phrase: Phrase) -> str:
    attributes = ", ".join(each.text for each in phrase.attributes)
    return f"{phrase.count or '-'}|{attributes}|{phrase.thing}"


@pytest.fixture(scope="module")
def shared_prompts() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "prompts"
    if not folder.is_dir():
        pytest.skip("the benchmarks' prompts (../shared/prompts) are not beside this checkout")
    return folder
