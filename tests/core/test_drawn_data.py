"""Pictures drawn for known prompts as training data: what they show, and what becomes of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from dpt_core.demo.scenes import shapes_boxes
from dpt_core.scene_prompts import SceneWords, put_together, scene_prompts
from dpt_core.shapes.caption import COLOURS, SHAPES, hard_negative, parse
from dpt_core.shapes.judge import judge
from dpt_core.shapes.scene import compose, render
from dpt_core.training.data.drawn import from_drawn
from dpt_core.training.data.examples import DataError

SIZE = 64
RED, BLUE, GREY = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.5, 0.5, 0.5)


def painted(*things) -> tuple[torch.Tensor, list[dict]]:
    """A picture with squares, and what a detector says: (label, colour, x, y)."""
    picture, boxes = torch.ones(SIZE, SIZE, 3), []
    for label, colour, x, y in things:
        picture[y : y + 16, x : x + 16] = torch.tensor(colour)
        boxes.append({"x": x, "y": y, "width": 16, "height": 16, "label": label, "score": 0.9})
    return picture, boxes


def read(prompt, *drawn):
    pictures, boxes = zip(*drawn, strict=True)
    return from_drawn(pictures, [prompt.parts] * len(drawn), boxes, SIZE)


DOG_CAR = put_together([("dog", "red", 1), ("car", "blue", 1)], "left of")
RIGHT = painted(("dog", RED, 4, 8), ("car", BLUE, 40, 8))
TURNED = painted(("dog", RED, 40, 8), ("car", BLUE, 4, 8))
SWAPPED = painted(("dog", BLUE, 4, 8), ("car", RED, 40, 8))
ALONE = painted(("dog", RED, 4, 8))


def test_right_and_wrong_pictures_of_a_prompt():
    found = read(DOG_CAR, RIGHT, TURNED, SWAPPED, ALONE)
    assert (found.right, found.wrong, found.unread) == (1, 3, 0)
    rows = {row.image: row for row in found.data.matching}
    assert rows["0"].caption == "a red dog left of a blue car"
    assert rows["0"].negative_images == ("1", "2", "3") and not rows["0"].negative_captions
    assert rows["1"].caption == "a red dog right of a blue car"
    assert rows["2"].caption == "a blue dog left of a red car"
    assert rows["3"].caption == "a red dog"
    for name in "123":
        assert rows[name].negative_captions == ("a red dog left of a blue car",)
        assert not rows[name].negative_images
    boxes = [(row.caption, row.boxes) for row in found.data.grounding if row.image == "0"]
    assert boxes == [("a red dog", ((4.0, 8.0, 16.0, 16.0),)),
                     ("a blue car", ((40.0, 8.0, 16.0, 16.0),))]  # fmt: skip


def test_counts_are_of_one_colour():
    three = put_together([("ball", "red", 3)])
    right = painted(*[("sports ball", RED, x, 4) for x in (0, 20, 40)])
    mixed = painted(("balls", RED, 0, 4), ("balls", RED, 20, 4), ("balls", BLUE, 40, 4))
    other = put_together([("ball", "blue", 1)])  # blue is a word of these prompts
    pictures, boxes = zip(right, mixed, mixed, strict=True)
    found = from_drawn(pictures, [three.parts, three.parts, other.parts], boxes, SIZE)
    captions = [row.caption for row in found.data.matching]
    assert captions == ["three red balls", *["two red balls and a blue ball"] * 2]
    assert (found.right, found.wrong) == (1, 2)


@pytest.mark.parametrize(
    "drawn",
    [
        painted(("dog", RED, 20, 8), ("car", BLUE, 22, 40)),  # neither left nor right
        painted(("dog", GREY, 4, 8), ("car", BLUE, 40, 8)),  # of no colour that prompts name
        painted(),
        painted(("zebra", RED, 4, 4)),  # nothing that prompts name
    ],
    ids=["beside", "grey", "nothing", "other"],
)
def test_what_cannot_be_told_is_left_out(drawn):
    found = read(DOG_CAR, RIGHT, drawn)
    assert (found.right, found.wrong, found.unread) == (1, 0, 1)
    assert [row.image for row in found.data.matching] == ["0"]


def test_labels_may_name_attributes_and_boxes_come_once():
    picture, boxes = painted(("a red dog", GREY, 4, 8), ("the blue car", GREY, 40, 8))
    found = read(DOG_CAR, (picture, [*boxes, boxes[0] | {"x": 5}]))
    assert found.right == 1 and len(found.data.grounding) == 2


def test_the_shapes_world_agrees_with_its_judge():
    rng = random.Random(5)
    prompts = scene_prompts(SceneWords(SHAPES, COLOURS), 60, seed=2)
    pictures, parts, truths, texts = [], [], [], []
    for prompt in prompts:
        caption = parse(prompt.text)
        for shown in (caption, hard_negative(caption, rng)):
            pictures.append(render(compose(shown, rng)))
            parts.append(prompt.parts)
            truths.append(judge(pictures[-1], caption).holds)
            texts.append(prompt.text)
    tensors = [torch.from_numpy(each).float() / 255 for each in pictures]
    found = from_drawn(tensors, parts, shapes_boxes(tensors, parts), 128)
    assert found.right + found.wrong >= 110
    for row in found.data.matching:
        index = int(row.image)
        assert (row.caption == texts[index]) == truths[index]
        assert judge(pictures[index], parse(row.caption)).holds
        for caption in row.negative_captions:
            assert not judge(pictures[index], parse(caption)).holds
        for other in row.negative_images:
            assert not judge(pictures[int(other)], parse(row.caption)).holds


@pytest.mark.parametrize(
    ("parts", "boxes", "said"),
    [
        ([], [[]], "the parts of each image.*1 images, 0 parts"),
        ([DOG_CAR.parts], [], "1 images, 1 parts and boxes of 0 images"),
        ([{"phrases": "no"}], [[]], "parts of image 1: expected what DPT Scene Prompts gives"),
        ([{"phrases": [], "relations": []}], [[]], "expected things and one relation"),
        (
            [{**DOG_CAR.parts, "phrases": [*DOG_CAR.parts["phrases"], *DOG_CAR.parts["phrases"]]}],
            [[]],
            "parts of image 1: expected what DPT Scene Prompts gives",
        ),
        ([DOG_CAR.parts], [[{"x": 1}]], "image 1: expected boxes with x, y, width and height"),
        ([DOG_CAR.parts], [[{"x": np.nan, "y": 0, "width": 1, "height": 1}]], "image 1: expected"),
        ([DOG_CAR.parts], [[]], "expected pictures whose things can be told; of 1 none"),
    ],
)
def test_what_cannot_be_read(parts, boxes, said):
    with pytest.raises(DataError, match=said):
        from_drawn([torch.ones(SIZE, SIZE, 3)], parts, boxes, SIZE)


def test_other_worlds_need_a_detector():
    with pytest.raises(DataError, match="name car, dog. Wire a detector's boxes"):
        shapes_boxes([torch.ones(SIZE, SIZE, 3)], [DOG_CAR.parts])
