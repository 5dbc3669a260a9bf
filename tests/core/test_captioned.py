"""Captioned pictures from folders and lists: what counts as one, negatives, what is held out."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from dpt_core.demo.scenes import demo_scenes
from dpt_core.training.data.captioned import from_lists, read_folder
from dpt_core.training.data.datasets import GroundingRow
from dpt_core.training.data.examples import DataError
from dpt_core.training.data.rows import (
    GroundingRows,
    MatchingRows,
    by_phrase,
    split_held_out,
    with_negatives,
)
from dpt_core.training.features import NoisedExamples


def picture(path, caption: str | None = None, size=(30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def test_pictures_with_a_text_beside_each(tmp_path):
    picture(tmp_path / "b.png", " a  red\nthing ")
    picture(tmp_path / "alone.png")
    picture(tmp_path / "empty.png", "")
    picture(tmp_path / "3_cats" / "c.JPG", "a cat")
    picture(tmp_path / "dogs" / "d.webp", "a dog")
    data = read_folder(tmp_path, 16)
    assert [(row.image, row.caption) for row in data.matching] == [
        ("b.png", "a red thing"), *[("3_cats/c.JPG", "a cat")] * 3, ("dogs/d.webp", "a dog"),
    ]  # fmt: skip
    assert data.images("b.png", "").tensor.shape == (3, 16, 16)
    assert data.texts() == ["a red thing", "a cat", "a dog"] and not data.grounding
    before = data.digest()
    picture(tmp_path / "b.png", "a red thing", (300, 200))
    assert read_folder(tmp_path, 16).digest() != before


def test_captions_jsonl_wins(tmp_path):
    picture(tmp_path / "a.png", "not this")
    lines = [
        {"image": "a.png", "caption": "a red cube left of a red cube", "negative": "a blue cube",
         "boxes": [{"phrase": "a red cube", "box": [1, 2, 3, 4]},
                   {"phrase": "a red cube", "box": [9, 2, 3, 4]},
                   {"phrase": "left", "box": [1, 1, 8, 8]}]},
        {"image": "a.png", "caption": "a thing"},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "captions.jsonl").write_text(text, encoding="utf-8")
    data = read_folder(tmp_path, 16)
    assert [row.negative_captions for row in data.matching] == [("a blue cube",), ()]
    assert [(row.caption, len(row.boxes)) for row in data.grounding] == [
        ("a red cube", 2), ("left", 1),
    ]  # fmt: skip


def test_nothing_to_train_on(tmp_path):
    picture(tmp_path / "alone.png")
    with pytest.raises(DataError, match="with a .txt of the same name beside each"):
        read_folder(tmp_path, 16)
    with pytest.raises(DataError, match="no image folder"):
        read_folder(tmp_path / "nowhere", 16)
    picture(tmp_path / "bad.png", "x")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="bad.txt: expected a caption in UTF-8"):
        read_folder(tmp_path, 16)


BOX = {"x": 4, "y": 2, "width": 8, "height": 4}


def test_lists_with_boxes_of_detectors():
    pictures = [torch.zeros(20, 40, 3), torch.ones(8, 8, 3)]
    boxes = [
        [{**BOX, "label": "cat", "score": 0.9}, {**BOX, "metadata": {"label": "dog"}}, BOX],
        [],
    ]
    data = from_lists(pictures, [" two animals ", "white"], boxes, 16)
    assert [row.caption for row in data.grounding] == ["cat", "dog", "two animals"]
    found = GroundingRows(data.grounding, data.images)[0]
    assert found.boxes.tolist() == [pytest.approx([0.2, 0.2, 0.2, 0.2])]
    assert data.images("1", "").tensor.eq(1).all()
    with pytest.raises(DataError, match="2 images, 1 captions"):
        from_lists(pictures, ["one"], None, 16)
    with pytest.raises(DataError, match="image 1: expected boxes with x, y"):
        from_lists(pictures, ["one", "two"], [[{"x": 1}], []], 16)
    with pytest.raises(DataError, match="image 2: expected a caption"):
        from_lists(pictures, ["one", " "], None, 16)


def test_negatives_of_the_data_win():
    data = from_lists([torch.zeros(8, 8, 3)] * 3, ["a", "b", "b"], None, 8)
    first = data.matching[0]._replace(negative_captions=("not a",))
    data = type(data)((first, *data.matching[1:]), (), data.images)
    asked = []

    def make(caption, limit, seed):
        asked.append(caption)
        return [f"no {caption}"] * limit if caption == "b" else []

    auto = with_negatives(data, "auto", make)
    assert asked == ["a", "b"]  # each once: what is made is a further negative of all captions
    assert (auto.captions, auto.with_negative) == (2, 2)
    assert set(auto.data.others) == {"b"} and set(auto.data.others["b"]) == {"no b"}
    assert not with_negatives(data, "file", make).data.others
    assert auto.data.matching[0].negative_captions == ("not a",)
    assert set(auto.data.matching[2].negative_captions) == {"no b"}
    assert with_negatives(data, "file", make).with_negative == 1
    assert with_negatives(data, "none", make).with_negative == 0
    with pytest.raises(ValueError, match="negatives must be one of auto, file, none"):
        with_negatives(data, "some", make)


def test_no_picture_is_on_both_sides():
    data = demo_scenes(120)
    train, held = split_held_out(data)
    names = {name for row in held.matching for name in (row.image, *row.negative_images)}
    others = {name for row in train.matching for name in (row.image, *row.negative_images)}
    assert names and not names & others and len(names | others) == 120
    assert {row.image for row in held.grounding} <= names
    assert split_held_out(data)[1].matching == held.matching
    with pytest.raises(DataError, match="at least 6 different pictures"):
        split_held_out(demo_scenes(8))


def test_a_row_for_each_phrase():
    spans = (((0, 5),), ((0, 5),), ((10, 15),), ())
    boxes = tuple((float(n), 0.0, 1.0, 1.0) for n in range(4))
    rows = by_phrase([GroundingRow("i", "a cat and a dog", boxes, spans, "x")])
    assert [(row.caption, len(row.boxes)) for row in rows] == [
        ("a cat", 2), ("a dog", 1), ("a cat and a dog", 1),
    ]  # fmt: skip


def test_demo_scenes_are_what_their_captions_say():
    data = demo_scenes(20)
    from dpt_core.shapes.caption import parse
    from dpt_core.shapes.judge import judge

    for row in data.matching:
        pixels = data.images(row.image, row.where).tensor
        shown = ((pixels + 1) * 127.5).round().byte().movedim(0, -1).numpy()
        assert judge(shown, parse(row.caption)).holds
        assert not judge(shown, parse(row.negative_captions[0])).holds
    example = GroundingRows(data.grounding, data.images)[3]
    assert example.boxes.min() > 0 and example.boxes.max() < 1
    assert MatchingRows(data.matching, data.images)[0].images.shape == (3, 3, 128, 128)


def test_examples_depend_on_their_number_alone():
    data = demo_scenes(20)
    few, many = NoisedExamples(data, 1, 3), NoisedExamples(data, 1, 50)
    assert torch.equal(few[2].noise, many[2].noise) and few[2].level == many[2].level
    assert not torch.equal(many[22].noise, many[2].noise)  # the same row, another time
    assert NoisedExamples(data, 1, 3, level=700)[0].level == 700
