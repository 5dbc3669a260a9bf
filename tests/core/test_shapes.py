"""The shapes world: captions, scenes, and a judge that reads pictures back."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from dpt_core.shapes.caption import (
    CATEGORIES,
    MOST_THINGS,
    RELATIONS,
    SHAPES,
    Caption,
    Mention,
    hard_negative,
    imagine,
    parse,
    same,
    word,
)
from dpt_core.shapes.faults import faulty_picture
from dpt_core.shapes.judge import judge, read
from dpt_core.shapes.scene import (
    BACKGROUND,
    CANVAS,
    PIXELS,
    RGB,
    Scene,
    Thing,
    compose,
    mask,
    offset,
    render,
)

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]

RED_CIRCLE, BLUE_SQUARE = Mention(1, "red", "circle"), Mention(1, "blue", "square")
PAIR = (Thing("circle", "red", "small", 30, 30), Thing("square", "blue", "large", 90, 60))
MANY = 3000


def true_of(scene: Scene, caption: Caption) -> bool:
    """Whether a caption without doubled kinds holds for a scene."""
    named = [
        [
            t
            for t in scene
            if (t.colour, t.shape) == (m.colour, m.shape) and m.size in (None, t.size)
        ]
        for m in caption.mentions
    ]
    if [len(things) for things in named] != [mention.count for mention in caption.mentions]:
        return False
    if sum(map(len, named)) != len(scene):
        return False
    return caption.relation is None or offset(named[0][0], named[1][0], caption.relation)[0] >= 8


def captions(count: int, seed: int = 0) -> list[Caption]:
    rng = random.Random(seed)
    return [imagine(rng) for _ in range(count)]


def blur(sigma: float) -> Damage:
    def damage(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        soft = ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0))
        return soft.round().astype(np.uint8)

    return damage


def noise(sigma: float) -> Damage:
    def damage(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        grainy = picture + rng.normal(0, 255 * sigma, picture.shape)
        return grainy.round().clip(0, 255).astype(np.uint8)

    return damage


def jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file).convert("RGB"))


def decoded(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As if from a small VAE: half the resolution, colours and brightness a little off."""
    half = Image.fromarray(picture).resize((CANVAS // 2,) * 2, Image.Resampling.BICUBIC)
    soft = np.asarray(half.resize((CANVAS,) * 2, Image.Resampling.BICUBIC))
    tinted = soft * (1 + rng.choice([-0.05, 0.05])) + rng.choice([-10, 10], 3)
    return tinted.round().clip(0, 255).astype(np.uint8)


def combined(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for damage in (blur(1), noise(0.03), jpeg):
        picture = damage(picture, rng)
    return picture


DAMAGES = {
    "none": lambda picture, rng: picture,
    "blur 0.5": blur(0.5),
    "blur 1": blur(1),
    "noise": noise(0.03),
    "JPEG": jpeg,
    "all three": combined,
    "decoded": decoded,
}


# Captions


def test_captions_survive_their_wording():
    rng = random.Random(1)
    for caption in captions(MANY):
        assert parse(word(caption, rng).text) == caption
        assert parse(word(caption).text) == caption


def test_spans_name_their_phrase():
    rng = random.Random(2)
    for caption in captions(MANY):
        wording = word(caption, rng)
        assert len(wording.spans) == len(caption.mentions)
        assert all(end < start for (_, end), (start, _) in pairwise(wording.spans))
        for (start, end), mention in zip(wording.spans, caption.mentions, strict=True):
            assert parse(wording.text[start:end]) == Caption((mention,))


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("three red circles", Caption((Mention(3, "red", "circle"),))),
        ("two large green crosses", Caption((Mention(2, "green", "cross", "large"),))),
        (
            "A red circle is to the left of a blue square.",
            Caption((RED_CIRCLE, BLUE_SQUARE), "left"),
        ),
        ("One red circle under one blue square", Caption((RED_CIRCLE, BLUE_SQUARE), "below")),
        ("there are 2 red circles", Caption((Mention(2, "red", "circle"),))),
        ("a red circle, and a blue square", Caption((RED_CIRCLE, BLUE_SQUARE))),
    ],
)
def test_sentences_people_write(text: str, caption: Caption):
    assert parse(text) == caption


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a pink elephant", "'a pink elephant'"),
        ("", "''"),
        ("three red circles and two blue squares", "more than 4 things"),
        ("two red circles left of a blue square", "between more than two things"),
        ("a red circle above a blue square under a green cross", "more than one relation"),
    ],
)
def test_what_cannot_be_drawn_is_explained(text: str, problem: str):
    with pytest.raises(ValueError, match="cannot draw") as error:
        parse(text)
    assert problem in str(error.value)
    assert "triangle" in str(error.value) and "purple" in str(error.value)


def test_captions_cover_the_world():
    drawn = captions(MANY)
    mentions = [mention for caption in drawn for mention in caption.mentions]
    assert {caption.category for caption in drawn} == set(CATEGORIES)
    assert {caption.relation for caption in drawn} == {None, *RELATIONS}
    assert {mention.shape for mention in mentions} == set(SHAPES)
    assert {mention.colour for mention in mentions} == set(RGB)
    assert {mention.size for mention in mentions} == {None, *PIXELS}
    assert {mention.count for mention in mentions} == {1, 2, 3, 4}


def test_the_same_can_be_said_in_another_order():
    assert same(Caption((RED_CIRCLE, BLUE_SQUARE)), Caption((BLUE_SQUARE, RED_CIRCLE)))
    left = Caption((RED_CIRCLE, BLUE_SQUARE), "left")
    assert same(left, Caption((BLUE_SQUARE, RED_CIRCLE), "right"))
    assert not same(left, Caption((BLUE_SQUARE, RED_CIRCLE), "left"))


def test_hard_negatives_say_something_else_that_can_be_drawn():
    rng = random.Random(3)
    for caption in captions(MANY):
        negative = hard_negative(caption, rng)
        assert not same(caption, negative)
        assert parse(word(negative, rng).text) == negative
        assert sum(mention.count for mention in negative.mentions) <= MOST_THINGS
        assert true_of(compose(negative, rng), negative)


# Scenes


def test_scenes_show_their_caption_and_not_its_hard_negative():
    rng = random.Random(4)
    for caption in captions(MANY):
        scene = compose(caption, rng)
        assert true_of(scene, caption)
        assert not true_of(scene, hard_negative(caption, rng))
        for thing in scene:
            reach = PIXELS[thing.size] / 2
            assert reach <= min(thing.x, thing.y) and max(thing.x, thing.y) <= CANVAS - reach


def test_boxes_frame_what_is_drawn():
    for thing in PAIR:
        inked = np.abs(render((thing,)).astype(int) - BACKGROUND).sum(-1) > 0
        rows, columns = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
        cx, cy, w, h = (CANVAS * value for value in thing.box)
        assert (columns[0], columns[-1] + 1) == (cx - w / 2, cx + w / 2)
        assert (rows[0], rows[-1] + 1) == (cy - h / 2, cy + h / 2)


# The judge


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_judge_is_right(damage: str):
    """On captions that hold and on hard negatives, 300 pictures for each damage."""
    rng, numbers = random.Random(damage), np.random.default_rng(5)
    wrong = []
    for caption in captions(300, seed=len(damage)):
        scene = compose(caption, rng)
        picture = DAMAGES[damage](render(scene), numbers)
        negative = hard_negative(caption, rng)
        wrong += [caption] * (not judge(picture, caption).holds)
        wrong += [negative] * judge(picture, negative).holds
    assert len(wrong) <= 0.005 * 600, wrong


def test_things_are_read_where_they_are():
    (circle, square) = read(render(PAIR))
    for found, thing in ((circle, PAIR[0]), (square, PAIR[1])):
        assert (found.shape, found.colour, found.size) == (thing.shape, thing.colour, thing.size)
        assert (found.x, found.y) == pytest.approx((thing.x, thing.y), abs=1)
        assert found.box == pytest.approx(thing.box, abs=2 / CANVAS)


@pytest.mark.parametrize("side", [64, 200, 512])
def test_pictures_of_any_size(side: int):
    picture = np.asarray(Image.fromarray(render(PAIR)).resize((side, side)))
    caption = Caption((RED_CIRCLE, BLUE_SQUARE))
    assert judge(picture, caption).holds
    assert judge(picture.astype(np.float32) / 255, caption).holds


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"\[H, W, 3\].*\[3, 128, 128\]"):
        read(np.zeros((3, 128, 128), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        read(np.zeros((128, 128, 3), np.int64))


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("a red circle and a blue square", ()),
        ("a small red circle and a large blue square", ()),
        ("a red circle left of a blue square", ()),
        ("a red circle above a blue square", ()),
        ("three red circles and a blue square", ("1 red circle instead of 3",)),
        ("a red circle", ("an extra blue square",)),
        ("a red circle, a blue square and a green cross", ("no green cross",)),
        ("a blue circle and a red square",
         ("no blue circle", "no red square", "an extra red circle", "an extra blue square")),
        ("a large red circle and a blue square",
         ("no large red circle", "an extra small red circle")),
        ("a red circle right of a blue square",
         ("the red circle is not right of the blue square",)),
        ("a blue square over a red circle", ("the blue square is not above the red circle",)),
    ],
)  # fmt: skip
def test_what_fails_is_named(text: str, failures: tuple[str, ...]):
    verdict = judge(render(PAIR), parse(text))
    assert verdict.holds == (not failures)
    assert sorted(verdict.failures) == sorted(failures)


def test_too_many_are_counted():
    scene = tuple(Thing("cross", "green", "small", x, 40) for x in (20, 60, 100))
    assert judge(render(scene), parse("a green cross")).failures == (
        "3 green crosses instead of 1",
    )
    assert judge(render(()), parse("two green crosses")).failures == (
        "no green crosses instead of 2",
    )


def test_kinds_named_twice():
    """A stated size takes its thing first; the other mention takes what is left."""
    scene = (Thing("circle", "red", "small", 30, 30), Thing("circle", "red", "large", 90, 60))
    assert judge(render(scene), parse("a red circle and a small red circle")).holds
    assert judge(render(scene), parse("a large red circle below a small red circle")).holds
    assert not judge(render(scene), parse("two small red circles")).holds


def test_a_relation_needs_a_clear_distance():
    for distance, holds in ((6, False), (10, True)):
        scene = (PAIR[0], Thing("square", "blue", "small", 30 + distance, 90))
        verdict = judge(render(scene), Caption((RED_CIRCLE, BLUE_SQUARE), "left"))
        assert verdict.holds == holds


# The sceptical judge


def halved(scene: Scene) -> np.ndarray:
    """A picture in which every thing lacks its right half."""
    picture = render(scene).copy()
    for thing in scene:
        reach = PIXELS[thing.size] // 2
        picture[thing.y - reach : thing.y + reach, thing.x : thing.x + reach] = BACKGROUND
    return picture


def shuffled(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A picture cut into square patches that are laid out anew."""
    count = CANVAS // side
    patches = picture.reshape(count, side, count, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    mixed = rng.permutation(patches).reshape(count, count, side, side, 3)
    return mixed.swapaxes(1, 2).reshape(CANVAS, CANVAS, 3)


def test_broken_pictures_never_hold():
    rng, numbers = random.Random(6), np.random.default_rng(6)
    for caption in captions(60, seed=6):
        scene = compose(caption, rng)
        clouds = ndimage.gaussian_filter(numbers.normal(size=(CANVAS, CANVAS, 3)), (8, 8, 0))
        broken = {
            "empty": render(()),
            "uniform": np.full((CANVAS, CANVAS, 3), numbers.integers(0, 256, 3), np.uint8),
            "one colour": np.full((CANVAS, CANVAS, 3), RGB[caption.mentions[0].colour], np.uint8),
            "not a number": np.full((CANVAS, CANVAS, 3), np.nan),
            "noise": numbers.integers(0, 256, (CANVAS, CANVAS, 3), dtype=np.uint8),
            "clouds": 0.6 + 0.25 * clouds / clouds.std(),
            "halved": halved(scene),
            "shuffled": shuffled(render(scene), 8, numbers),
            "coarsely shuffled": shuffled(render(scene), 16, numbers),
        }
        for name, picture in broken.items():
            assert not judge(picture, caption).holds, name


def test_pictures_with_a_fault():
    """A caption holds for its scene and hardly ever for the scene with a fault."""
    held, said = 0, set()
    for number, caption in enumerate(captions(300, seed=8)):
        scene = compose(caption, random.Random(number))
        picture = faulty_picture(scene, random.Random(number))
        assert picture.shape == (CANVAS, CANVAS, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, faulty_picture(scene, random.Random(number)))
        verdict = judge(picture, caption)
        held += verdict.holds
        said |= {word for failure in verdict.failures for word in failure.split()}
    assert held <= 6
    assert {"extra", "no", "instead", "something"} <= said  # every kind comes up


def drawn(outline: np.ndarray, colour: np.ndarray | tuple[int, ...]) -> np.ndarray:
    """One thing `[side, side]` 0..255 in a colour, in the middle of an empty picture."""
    picture = np.tile(np.float64(BACKGROUND), (CANVAS, CANVAS, 1))
    start, cover = 40, outline[..., None] / 255
    window = picture[start : start + len(outline), start : start + len(outline)]
    window += cover * (colour - window)
    return picture.round().astype(np.uint8)


@pytest.mark.parametrize("size", PIXELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_things_that_are_wrong_in_themselves_never_hold(shape: str, size: str):
    side = PIXELS[size]
    caption = Caption((Mention(1, "red", shape),))
    whole, red = np.asarray(mask(shape, side)), np.float64(RGB["red"])
    assert judge(drawn(whole, red), caption).holds
    wrong = {"pale": drawn(whole // 2, red), "orange": drawn(whole, (240, 140, 40))}
    stripes = np.where(np.arange(side)[:, None, None] < side // 2, red, np.float64(RGB["blue"]))
    wrong["two-coloured"] = drawn(whole, stripes)
    ring = whole.copy()
    ring[side // 4 : -side // 4, side // 4 : -side // 4] = 0
    wrong["hollow"] = drawn(ring, red)
    for other in set(SHAPES) - {shape}:
        mixture = whole.copy()
        mixture[side // 2 :] = np.asarray(mask(other, side))[side // 2 :]
        wrong[f"half a {other}"] = drawn(mixture, red)
    wrong["too large"] = drawn(np.asarray(mask(shape, 64)), red)
    wrong["too small"] = drawn(np.asarray(mask(shape, 14)), red)
    for name, picture in wrong.items():
        verdict = judge(picture, caption)
        assert not verdict.holds, name
        assert any("no shape" in f or "no known colour" in f for f in verdict.failures), name
