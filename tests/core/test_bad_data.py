"""Training data that is broken or crafted: file and line, what is wrong, in time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import in_time
from PIL import Image

from dpt_core.training.backbone import Backbone, PhraseEncoder
from dpt_core.training.data.datasets import images_digest
from dpt_core.training.data.examples import DataError
from dpt_core.training.data.hard_negatives import HardNegativeTable
from dpt_core.training.data.images import ImageFolder
from dpt_core.training.data.jsonl import JsonlGrounding, JsonlMatching
from dpt_core.training.data.refcoco import RefCoco

GOOD = {
    "image": "a.png", "caption": "a red cube", "negative": "a ball",
    "boxes": [{"phrase": "a red cube", "box": [1, 1, 4, 4]}],
}  # fmt: skip
generated = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def folder(tmp_path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(pictures / name)
    Image.new("RGB", (16, 16)).save(tmp_path / "outside.png")
    return tmp_path


def refused(says: str, where: str, read) -> None:
    with in_time(), pytest.raises(DataError, match=says) as caught:
        read()
    assert where in str(caught.value) and len(str(caught.value)) < 1500


def lines(folder: Path, text: str | bytes) -> Path:
    path = folder / "data.jsonl"
    first = json.dumps(GOOD | {"image": "b.png", "caption": "a red cube there"}) + "\n"
    path.write_bytes(first.encode() + (text.encode() if isinstance(text, str) else text))
    return path


def changed(**changes) -> str:
    return json.dumps(GOOD | changes)


BOX = {"phrase": "a red cube", "box": [1, 1, 4, 4]}
LINES = {
    "no JSON": ("{", "one JSON object"),
    "a list": ("[]", "expected a JSON object"),
    "a number": ("3", "expected a JSON object"),
    "deep": ("[" * 100_000, "nested too deep"),
    "deep object": ('{"a":' * 50_000, "nested too deep|column"),
    "digits": ('{"image": ' + "9" * 5_000 + "}", "too many digits|must be a text"),
    "no text": (b"\xff\xfe{", "UTF-8"),
    "no image": (json.dumps({"caption": "x"}), 'expected a "image"'),
    "no caption": (json.dumps({"image": "a.png"}), 'expected a "caption"'),
    "image of another kind": (changed(image=["a.png"]), '"image" must be a text'),
    "image, a number": (changed(image=3), '"image" must be a text'),
    "image, empty": (changed(image=" "), '"image" must be a text'),
    "caption of another kind": (changed(caption={"a": 1}), '"caption" must be a text'),
    "negative of another kind": (changed(negative=7), '"negative" must be a text'),
    "negative alike": (changed(negative="a red cube"), "must differ"),
    "boxes, a number": (changed(boxes=3), '"boxes" must be a list'),
    "box, a number": (changed(boxes=[3]), r"boxes\[0\]"),
    "box of three": (changed(boxes=[BOX | {"box": [1, 1, 4]}]), "4 finite numbers"),
    "box of texts": (changed(boxes=[BOX | {"box": ["1", 1, 4, 4]}]), "4 finite numbers"),
    "box of truths": (changed(boxes=[BOX | {"box": [True, 1, 4, 4]}]), "4 finite numbers"),
    "box, NaN": (changed(boxes=[BOX | {"box": [float("nan"), 1, 4, 4]}]), "4 finite numbers"),
    "box, infinite": (changed(boxes=[BOX | {"box": [0, 0, float("inf"), 1]}]), "4 finite numbers"),
    "box, huge": (changed(boxes=[BOX | {"box": [0, 0, 10**400, 1]}]), "4 finite numbers"),
    "box, empty": (changed(boxes=[BOX | {"box": [1, 1, 0, 4]}]), "above 0"),
    "phrase elsewhere": (changed(boxes=[BOX | {"phrase": "a ball"}]), "stands in the caption"),
    "phrase of another kind": (changed(boxes=[BOX | {"phrase": []}]), '"phrase" must be a text'),
}  # fmt: skip


@pytest.mark.parametrize("reader", [JsonlMatching, JsonlGrounding])
@pytest.mark.parametrize("case", LINES)
def test_lines(case, reader, folder):
    text, says = LINES[case]
    path = lines(folder, text)
    refused(says, "data.jsonl:2", lambda: reader(path, 16, folder / "pictures"))


NAMES = {
    "missing": ("none.png", "no such file"),
    "above": ("../outside.png", "lies elsewhere"),
    "above, in disguise": ("x/../../outside.png", "lies elsewhere"),
    "absolute": ("/etc/hostname", "lies elsewhere"),
    "a folder": (".", "no such file"),
    "a pipe": ("pipe.png", "no such file"),
    "too long": ("x" * 5_000, "name of an image|no such file"),
    "with a zero": ("a\0.png", "name of an image|no such file"),
    "no picture": ("text.png", "Pillow can read"),
    "cut off": ("cut.png", "Pillow can read"),
    "a bomb": ("bomb.png", "Pillow can read"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_names_of_pictures(case, folder, monkeypatch):
    name, says = NAMES[case]
    pictures = folder / "pictures"
    os.mkfifo(pictures / "pipe.png")
    (pictures / "text.png").write_text("no picture")
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:40])
    Image.new("1", (900, 900)).save(pictures / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 30,000 pixels square by default
    data = JsonlGrounding(lines(folder, changed(image=name)), 16, pictures)
    refused(says, "data.jsonl:2", lambda: data[1])
    if "Pillow" not in says:  # those are known before training starts
        refused(says, "data.jsonl:2", lambda: images_digest(data))


@pytest.mark.parametrize("size", [0, -8, 7, 10**6, 4104, 2**40])
def test_impossible_sizes(size, folder):
    refused("image size must be .*up to 4096", str(size), lambda: ImageFolder(folder, size))


ENTRY = {"id": 1, "file_name": "a.png", "caption": "a red cube", "width": 16, "height": 16}
MARK = {"image_id": 1, "bbox": [1, 1, 4, 4], "tokens_positive": [[0, 10]]}
DOCUMENTS = {
    "no JSON": ("{", "one JSON document"),
    "deep": ("[" * 100_000, "one JSON document"),
    "digits": ("9" * 5_000, "one JSON document|images"),
    "a list": ("[]", '"images"'),
    "id, a list": ({"images": [ENTRY | {"id": [1]}]}, '"id" must be'),
    "id, an object": ({"images": [ENTRY | {"id": {}}]}, '"id" must be'),
    "image_id, a list": ({"annotations": [MARK | {"image_id": [1]}]}, '"image_id"'),
    "image_id of none": ({"annotations": [MARK | {"image_id": 2}]}, '"image_id"'),
    "no id": ({"annotations": [{"bbox": [1, 1, 4, 4]}]}, '"image_id"'),
    "images, an object": ({"images": {}}, '"images"'),
    "an image, a number": ({"images": [3]}, "expected an object"),
    "a size of texts": ({"images": [ENTRY | {"width": "16"}]}, "size"),
    "a box of texts": ({"annotations": [MARK | {"bbox": "1234"}]}, "bbox"),
    "spans, a number": ({"annotations": [MARK | {"tokens_positive": 3}]}, "tokens_positive"),
    "spans beyond": ({"annotations": [MARK | {"tokens_positive": [[20, 30]]}]}, "tokens_positive"),
    "spans of texts": ({"annotations": [MARK | {"tokens_positive": [["0", 3]]}]}, "tokens_pos"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents(case, folder):
    content, says = DOCUMENTS[case]
    path = folder / "data.json"
    if isinstance(content, dict):
        content = json.dumps({"images": [ENTRY], "annotations": [MARK]} | content)
    path.write_text(content)
    refused(says, "data.json", lambda: RefCoco(path, folder / "pictures", 16))


CELLS = {
    "a call": "__import__('os').system('true')",
    "deep": "[" * 5_000 + "]" * 5_000,
    "digits": "[" + "9" * 5_000 + "]",
    "a number": "3",
    "unfinished": "['a",
    "names of another kind": "[[1]]",
    "a number beyond": "[99]",
}


@pytest.mark.parametrize("case", CELLS)
def test_cells(case, folder):
    path = folder / "data.tsv"
    header = "title\tfilepath\tneg_caption\tneg_image\n"
    path.write_text(f"{header}a red cube\ta.png\t['a ball']\t{CELLS[case]}\n")
    data = HardNegativeTable(path, folder / "pictures", 16)
    refused("neg_image must", "data.tsv:2", lambda: data.row(0))


def empty(folder: Path) -> None:
    pass


def of_nothing(folder: Path) -> None:
    for name in ("model_index.json", "config.json"):
        (folder / name).write_text("{}")


def torn(folder: Path) -> None:
    for name in ("model_index.json", "config.json"):
        (folder / name).write_bytes(b'{"_class')


def deep(folder: Path) -> None:
    for name in ("model_index.json", "config.json"):
        (folder / name).write_text("[" * 100_000)


@pytest.mark.parametrize("model", [Backbone, PhraseEncoder])
@pytest.mark.parametrize("content", [empty, of_nothing, torn, deep])
def test_model_folders(content, model, tmp_path):
    content(tmp_path)
    with in_time(), pytest.raises(ValueError, match=str(tmp_path)):
        model.from_folder(tmp_path)


@pytest.mark.parametrize("model", [Backbone, PhraseEncoder])
def test_a_name_is_not_looked_up_in_the_network(model, monkeypatch):
    import socket

    def dial(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", dial)
    with in_time(), pytest.raises(ValueError, match="roberta-base must be a .* model directory"):
        model.from_folder("roberta-base")


@generated
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@pytest.mark.parametrize("reader", [JsonlMatching, RefCoco, HardNegativeTable])
def test_anything_else(reader, content, folder):
    path = folder / "data"
    path.write_bytes(content)
    refused("expected", "data", lambda: reader(path, images=folder / "pictures", size=16))
