"""Training data: what readers give, that it never varies, and what bad data is told."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import re

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from dpt_core.training.data.datasets import images_digest, mentioned_images
from dpt_core.training.data.examples import DataError
from dpt_core.training.data.hard_negatives import HardNegativeTable
from dpt_core.training.data.jsonl import JsonlGrounding, JsonlMatching
from dpt_core.training.data.latents import with_latents
from dpt_core.training.data.precompute import precompute
from dpt_core.training.data.refcoco import RefCoco

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


@pytest.fixture
def folder(tmp_path):
    """Plain images of 64 × 32 pixels, named after their colours."""
    (tmp_path / "images").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 32), colour).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


ROWS = [
    {
        "image": "red.png",
        "caption": "A red cube left of a ball",
        "negative": "A ball left of a red cube",
        "negative_image": "green.png",
        "boxes": [
            {"phrase": "a red cube", "box": [0, 0, 32, 16]},
            {"phrase": "ball", "box": [32, 8, 32, 24]},
        ],
    },
    {"image": "green.png", "caption": "something green"},
    {
        "image": "blue.png",
        "caption": "two cats, a cat and a cat",
        "boxes": [{"phrase": "cat", "box": [0, 0, 8, 8]}] * 3,
    },
    {"image": "black.png", "caption": "nothing"},
]


def write_jsonl(folder, rows, name="train.jsonl"):
    path = folder / "images" / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def colour_of(image) -> str:
    """Name of a plain image's colour."""
    assert torch.equal(image, image[:, :1, :1].expand_as(image))
    colour = tuple(((image[:, 0, 0] + 1) * 127.5).round().int().tolist())
    return {value: name for name, value in COLOURS.items()}[colour]


def same(one, other) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


def says(error, *parts) -> None:
    for part in parts:
        assert part in str(error.value)


# JSONL


def test_jsonl_matching(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 16)
    assert len(data) == 4
    images, captions = data[0]
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.float32
    assert type(images) is torch.Tensor
    assert [colour_of(image) for image in images[:2]] == ["red", "green"]
    assert captions[:2] == (ROWS[0]["caption"], ROWS[0]["negative"])
    assert same(data[-4], data[0])
    with pytest.raises(IndexError):
        data[4]


def test_negatives_are_other_rows(folder):
    twin = {"image": "black.png", "caption": "something green"}
    again = {"image": "green.png", "caption": "a green wall"}
    path = write_jsonl(folder, [*ROWS, twin, again])
    seen_images, seen_captions = set(), set()
    for seed in range(30):
        images, captions = JsonlMatching(path, 16, seed=seed)[1]
        assert captions[0] == "something green" and colour_of(images[0]) == "green"
        seen_images |= {colour_of(image) for image in images[1:]}
        seen_captions |= set(captions[1:])
    assert seen_images == {"red", "blue", "black"}
    assert seen_captions == {ROWS[0]["caption"], ROWS[2]["caption"], "nothing"}


def test_same_seed_same_examples(folder):
    path = write_jsonl(folder, ROWS)
    data = JsonlMatching(path, 16, seed=3)
    examples = [data[index] for index in range(4)]
    later = JsonlMatching(path, 16, seed=3)
    assert same(later[2], examples[2])  # not a matter of what was read before
    workers = DataLoader(
        data, None, num_workers=2, multiprocessing_context="spawn", collate_fn=copy.copy
    )
    assert all(same(*pair) for pair in zip(workers, examples, strict=True))
    others = [JsonlMatching(path, 16, seed=seed)[3].captions for seed in range(9)]
    assert len(set(others)) > 1


def test_jsonl_grounding(folder):
    data = JsonlGrounding(write_jsonl(folder, ROWS), 16)
    assert len(data) == 2
    image, caption, boxes, spans = data[0]
    assert colour_of(image) == "red" and image.shape == (3, 16, 16)
    expected = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.625, 0.5, 0.75]])
    torch.testing.assert_close(boxes, expected)
    assert [caption[slice(*span)] for (span,) in spans] == ["A red cube", "ball"]


def test_the_kth_box_takes_the_kth_place_of_its_phrase(folder):
    _, caption, _, spans = JsonlGrounding(write_jsonl(folder, ROWS), 16)[1]
    starts = [match.start() for match in re.finditer(r"\bcat\b", caption)]
    assert [start for ((start, _),) in spans] == [starts[0], starts[1], starts[1]]


def test_a_box_is_where_it_was_in_the_resized_image(folder):
    image = Image.new("RGB", (200, 80), "black")
    image.paste("white", (50, 20, 150, 40))
    image.save(folder / "images" / "box.png")
    row = {
        "image": "box.png",
        "caption": "it",
        "boxes": [{"phrase": "it", "box": [50, 20, 100, 20]}],
    }
    image, _, boxes, _ = JsonlGrounding(write_jsonl(folder, [row]), 64)[0]
    cx, cy, w, h = (boxes[0] * 64).tolist()
    bright = (image[0] > 0).nonzero()
    assert bright.amin(0).tolist() == [cy - h / 2, cx - w / 2]
    assert (bright.amax(0) + 1).tolist() == [cy + h / 2, cx + w / 2]


def test_blank_lines_marks_and_alphabets(folder):
    rows = [
        "\ufeff" + json.dumps(ROWS[1]),
        "",
        json.dumps({**ROWS[3], "caption": "狗 ü"}, ensure_ascii=False),
    ]
    data = JsonlMatching(write_jsonl(folder, rows), 16)
    assert [data[index].captions[0] for index in range(2)] == ["something green", "狗 ü"]


def test_keys_that_are_not_used_are_named(folder, caplog):
    JsonlMatching(write_jsonl(folder, [{**ROWS[0], "negatives": "x"}, ROWS[1]]), 16)
    assert "['negatives']" in caplog.text


def boxed(**box):
    return {**ROWS[0], "boxes": [{"phrase": "ball", "box": [0, 0, 8, 8], **box}]}


BAD_LINES = {
    "{": "column 2",
    "[1, 2]": "JSON object",
    '{"caption": "x"}': 'expected a "image"; got only "caption"',
    '{"image": "red.png"}': 'expected a "caption"',
    '{"image": "red.png", "caption": " "}': "not empty",
    '{"image": 3, "caption": "x"}': "got 3",
    json.dumps({**ROWS[0], "negative": 7}): '"negative" must be a text',
    json.dumps({**ROWS[0], "negative": ROWS[0]["caption"]}): "must differ",
    json.dumps({**ROWS[0], "boxes": {}}): '"boxes" must be a list',
    json.dumps({**ROWS[0], "boxes": [[0, 0, 1, 1]]}): "boxes[0]: expected {",
    json.dumps(boxed(phrase="a dog")): "stands in the caption 'A red cube left of a ball'",
    json.dumps(boxed(phrase="bal")): "got 'bal'",
    json.dumps(boxed(box=[0, 0, 8])): "4 finite numbers [x, y, w, h]; got [0, 0, 8]",
    json.dumps(boxed(box=[0, 0, 8, "8"])): "4 finite numbers",
    json.dumps(boxed(box=[0, 0, 8, float("nan")])): "4 finite numbers",
    json.dumps(boxed(box=[0, 0, 8, 0])): "above 0",
}


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("reader", [JsonlMatching, JsonlGrounding])
def test_bad_lines_are_named_at_once(line, reader, folder):
    path = write_jsonl(folder, [ROWS[0], "", line])
    with pytest.raises(DataError) as error:
        reader(path, 16)
    says(error, f"{path}:3: ", BAD_LINES[line])


@pytest.mark.parametrize("box", [[0, 0, 80, 8], [70, 0, 8, 8], [-4, 0, 8, 8], [32, 16, 64, 32]])
def test_boxes_outside_their_image(box, folder):
    path = write_jsonl(folder, [boxed(box=box)])
    with pytest.raises(DataError) as error:
        JsonlGrounding(path, 16)[0]
    says(error, f"{path}:1: ", "64 × 32", str(box), "[x0, y0, x1, y1]")


def test_bad_files(folder, tmp_path):
    with pytest.raises(DataError, match=r"expected a data file at .*none.jsonl"):
        JsonlMatching(tmp_path / "none.jsonl", 16)
    with pytest.raises(DataError, match="at least one line"):
        JsonlMatching(write_jsonl(folder, [""]), 16)
    with pytest.raises(DataError, match='at least one line with "boxes"'):
        JsonlGrounding(write_jsonl(folder, [ROWS[1]]), 16)
    path = write_jsonl(folder, ROWS)
    with pytest.raises(DataError, match="no image folder"):
        JsonlMatching(path, 16, images=tmp_path / "none")
    with pytest.raises(DataError, match="multiple of 8 pixels.*got 500"):
        JsonlMatching(path, 500)
    path.write_bytes(path.read_bytes() + b'{"image": "\xff"}')
    with pytest.raises(DataError, match=r"train.jsonl:5: expected UTF-8.*0xff at column 12"):
        JsonlMatching(path, 16)


def test_bad_images(folder):
    path = write_jsonl(folder, [ROWS[1], {**ROWS[3], "image": "none.png"}])
    data = JsonlMatching(path, 16)
    with pytest.raises(DataError) as error:
        images_digest(data)
    says(error, f"{path}:2: ", "none.png", "no such file")
    with pytest.raises(DataError, match="no such file"):
        data[1]
    whole = (folder / "images" / "green.png").read_bytes()
    for broken in (b"no image", whole[:40], whole[:-30]):
        (folder / "images" / "green.png").write_bytes(broken)
        with pytest.raises(DataError) as error:
            data[0]
        says(error, f"{path}:1: ", "Pillow can read", "green.png")


def test_nothing_to_draw_from(folder):
    path = write_jsonl(folder, [ROWS[1], ROWS[1]])
    with pytest.raises(DataError, match=r"train.jsonl:1: expected other rows"):
        JsonlMatching(path, 16)[0]


def test_errors_pass_through_worker_processes(folder):
    data = JsonlMatching(write_jsonl(folder, [ROWS[1], {**ROWS[3], "image": "none.png"}]), 16)
    with pytest.raises(DataError, match="none.png"):
        list(DataLoader(data, None, num_workers=1))


# The published table of hard negatives

HEADER = ["title", "filepath", "neg_caption", "neg_image"]

TABLE = [
    ["a red wall", "red.png", repr(["a wall", 'the "red" one']), repr(["green.png", "blue.png"])],
    ['a "green"\tthing\nin two lines', "green.png", "[]", "[]"],
    ["a blue wall", "blue.png", repr(["it's\nred"]), "[0, 1]"],
    ["it is black", "black.png", repr(["white"]), "['red.png']"],
]


def write_table(folder, rows, header=HEADER):
    path = folder / "negatives.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, "excel-tab", lineterminator="\n").writerows([header, *rows])
    return path


def test_table(folder):
    path = write_table(folder, TABLE)
    seen = set()
    for seed in range(30):
        data = HardNegativeTable(path, folder / "images", 16, seed=seed)
        images, captions = data[0]
        assert colour_of(images[0]) == "red" and captions[0] == "a red wall"
        assert captions[2] in {row[0] for row in TABLE[1:]} and colour_of(images[2]) != "red"
        seen |= {captions[1], colour_of(images[1])}
        assert colour_of(data[2].images[1]) in {"red", "green"}  # row numbers
    assert seen == {"a wall", 'the "red" one', "green", "blue"}
    assert len(data) == 4 and data[1].captions[0] == TABLE[1][0]
    assert data[2].captions[1] == "it's\nred"
    assert [colour_of(data[index].images[0]) for index in range(4)] == list(COLOURS)
    assert len(mentioned_images(data)) == 4


def test_other_columns_and_their_order_do_not_matter(folder):
    header = ["", *reversed(HEADER)]
    path = write_table(folder, [[0, *reversed(row)] for row in TABLE], header)
    data = HardNegativeTable(path, folder / "images", 16)
    assert data[3].captions[:2] == ("it is black", "white")


def test_bad_tables(folder):
    def read(rows, header=HEADER):
        return HardNegativeTable(write_table(folder, rows, header), folder / "images", 16)

    with pytest.raises(DataError, match=r"negatives.tsv:1: .*neg_image missing"):
        read(TABLE, [*HEADER[:3], "image"])
    with pytest.raises(DataError, match="a header and at least one row"):
        read([])
    with pytest.raises(DataError, match=r"negatives.tsv:5: expected 4 columns.*got 3"):
        read([*TABLE[:2], TABLE[2][:3]])  # row 2 fills two lines
    for column, value, message in (
        (2, "a wall", "neg_caption must be a list"),
        (2, "[3]", "texts that are not empty; got 3"),
        (3, "[9]", "row numbers from 0 to 3; got 9"),
        (3, "__import__('os')", "neg_image must be a list"),
        (0, " ", "must be a text"),
    ):
        rows = [list(row) for row in TABLE]
        rows[0][column] = value
        with pytest.raises(DataError) as error:
            read(rows)[0]
        says(error, "negatives.tsv:2: ", message)


def test_a_quotation_mark_that_is_never_closed(folder):
    path = write_table(folder, TABLE[:1])
    row = "\tx.png\t[]\t[]\n"
    path.write_text(path.read_text() + f'"open{row}' + f"fine{row}" * 20_000)
    with pytest.raises(DataError, match=r"negatives.tsv:3: .*never closed"):
        HardNegativeTable(path, folder / "images", 16)


# RefCOCO


def refcoco():
    images = [
        {
            "id": 5,
            "file_name": "red.png",
            "caption": "the cup on the left",
            "width": 64,
            "height": 32,
        },
        {"id": 2, "file_name": "blue.png", "caption": "dog", "width": 64, "height": 32},
        {"id": 7, "file_name": "green.png", "caption": "no box"},
    ]
    boxes = [
        {"image_id": 2, "bbox": [0, 0, 64, 32], "tokens_positive": [[0, 5]], "iscrowd": 0},
        {"image_id": 5, "bbox": [48, 0, 32, 16], "tokens_positive": [[0, 7], [11, 19]]},
        {"image_id": 5, "bbox": [64, 0, 8, 8], "tokens_positive": [[0, 7]]},
        {"image_id": 5, "bbox": [0, 0, 0, 8], "tokens_positive": [[0, 7]]},
        {"image_id": 5, "bbox": [0, 0, 8, 8], "tokens_positive": [[0, 7]], "iscrowd": 1},
    ]
    return {"images": images, "annotations": boxes}


def read_refcoco(folder, content):
    path = folder / "finetune_refcoco_train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return RefCoco(path, folder / "images", 16)


def test_refcoco(folder, caplog):
    data = read_refcoco(folder, refcoco())
    assert len(data) == 2 and "1 captions without a box" in caplog.text
    image, caption, boxes, spans = data[0]
    assert colour_of(image) == "red" and caption == "the cup on the left"
    torch.testing.assert_close(boxes, torch.tensor([[0.875, 0.25, 0.25, 0.5]]))
    assert spans == (((0, 7), (11, 19)),)
    assert data[1].spans == (((0, 3),),)
    assert same(pickle.loads(pickle.dumps(data))[0], data[0])


def edit(change):
    content = refcoco()
    change(content)
    return content


BAD_JSON = [
    ("{\n\n}}", "finetune_refcoco_train.json:3: "),
    ([], 'lists "images" and "annotations"'),
    ({"images": []}, 'without "annotations"'),
    (edit(lambda c: c["images"][1].pop("caption")), 'images[1]: expected a "caption"'),
    (edit(lambda c: c["images"].append(3)), "images[3]: expected an object; got 3"),
    (edit(lambda c: c["annotations"][1].pop("image_id")), "annotations[1]: "),
    (edit(lambda c: c["annotations"][1].update(image_id=9)), "annotations[1]: "),
    (edit(lambda c: c["annotations"][1].update(bbox=[1])), '"bbox" must be 4 finite'),
    (edit(lambda c: c["annotations"][1].pop("tokens_positive")), "got None"),
    (edit(lambda c: c["annotations"][1].update(tokens_positive=[])), "got []"),
    (edit(lambda c: c["annotations"][1].update(tokens_positive=[[3, 3]])), "[[0, 19]]"),
    (edit(lambda c: c["annotations"][1].update(tokens_positive=[[0, 2], [40, 50]])), "spans"),
    (edit(lambda c: c["annotations"].clear()), "at least one caption"),
]


@pytest.mark.parametrize("content, message", BAD_JSON)
def test_bad_refcoco(content, message, folder):
    with pytest.raises(DataError) as error:
        read_refcoco(folder, content)
    says(error, "finetune_refcoco_train.json", message)


def test_images_of_another_size_than_the_boxes(folder):
    data = read_refcoco(folder, edit(lambda c: c["images"][0].update(width=640)))
    with pytest.raises(DataError, match=r"images\[0\]: expected red.png to be 640 × 32.*64 × 32"):
        data[0]


# Precomputed latents


def encode(images):
    """A stand-in for a VAE: four channels, an eighth of the side."""
    small = torch.nn.functional.avg_pool2d(images, 8)
    return torch.cat([small, small.mean(1, keepdim=True)], 1)


def test_latents_stand_in_for_images(folder):
    matching = JsonlMatching(write_jsonl(folder, ROWS), 16)
    grounding = JsonlGrounding(matching._records.path, 16)
    calls = []
    count = precompute(
        [matching, grounding],
        lambda images: calls.append(len(images)) or encode(images),
        folder / "latents",
        batch_size=2,
        shard_size=3,
        progress=False,
    )
    assert count == 4 and calls == [2, 1, 1]
    for data in (matching, grounding):
        latents = with_latents(data, folder / "latents")
        latents = pickle.loads(pickle.dumps(latents))
        for index in range(len(data)):
            (images, *rest), (got, *others) = data[index], latents[index]
            torch.testing.assert_close(
                got, encode(images.reshape(-1, 3, 16, 16)).reshape(got.shape)
            )
            assert got.dtype == torch.float32 and same(rest, others)
    assert matching[0].images.shape == (3, 3, 16, 16)
    digest = images_digest(matching, grounding)
    for image in COLOURS:  # latents alone will do
        (folder / "images" / f"{image}.png").unlink()
    assert with_latents(matching, folder / "latents")[0].images.shape == (3, 4, 2, 2)
    assert len(mentioned_images(latents)) == 2
    latent_matching = with_latents(matching, folder / "latents")
    assert images_digest(latent_matching, latents) == digest  # of the images they were made from


def test_moments_are_drawn_from_by_index_and_seed(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 64)
    precompute(
        data,
        lambda images: (encode(images).half(), torch.full_like(encode(images), 0.1).half()),
        folder / "latents",
        progress=False,
    )
    latents = with_latents(data, folder / "latents")
    images, captions = data[0]
    assert latents[0].captions == captions and latents[0].images.dtype == torch.float32
    noise = (latents[0].images - encode(images)) / 0.1
    assert 0.8 < noise.std() < 1.2 and noise.mean().abs() < 0.2
    assert same(latents[0], latents[0])
    latents.seed = 1
    assert not torch.equal(
        latents[0].images[0], with_latents(data, folder / "latents")[0].images[0]
    )


def test_precompute_goes_on_after_an_interruption(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 16)
    target = folder / "latents"

    def interrupted(images):
        if len(list(target.glob("*.safetensors"))) == 1:
            raise KeyboardInterrupt
        return encode(images)

    with pytest.raises(KeyboardInterrupt):
        precompute(data, interrupted, target, shard_size=2, progress=False)
    assert sorted(file.name for file in target.iterdir()) == [
        "index.json",
        "latents-00000.safetensors",
    ]
    with pytest.raises(DataError, match="expected 2 shards of latents; got 1.*goes on"):
        with_latents(data, target)
    assert precompute(data, encode, target, shard_size=2, workers=1) == 2
    assert precompute(data, encode, target, shard_size=2) == 0
    assert with_latents(data, target)[0].images.shape == (3, 4, 2, 2)
    with safe_open(target / "latents-00001.safetensors", "pt") as file:
        assert file.get_tensor("sizes").tolist() == [[64, 32]] * 2


def test_precompute_leaves_the_random_numbers_of_the_training_alone(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 16)
    state = torch.get_rng_state()
    precompute(data, encode, folder / "latents", progress=False)
    with_latents(data, folder / "latents")[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_latents_of_something_else(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 16)
    target = folder / "latents"
    with pytest.raises(DataError, match="no latents at"):
        with_latents(data, target)
    precompute(data, encode, target, vae="sd-1", progress=False)
    larger = JsonlMatching(data._records.path, 32)
    fewer = JsonlMatching(write_jsonl(folder, ROWS[:2], "fewer.jsonl"), 16)
    for change, message in (({}, "size 32; got 16"), ({"vae": "sd-2"}, "vae sd-2; got sd-1")):
        with pytest.raises(DataError, match=message):
            precompute(data if change else larger, encode, target, **{"vae": "sd-1"} | change)
    with pytest.raises(DataError, match="of 2 images; got others, of 4 images"):
        precompute(fewer, encode, target, vae="sd-1")
    assert len(with_latents(fewer, target)) == 2
    with pytest.raises(DataError, match="images of 32 pixels; got 16"):
        with_latents(larger, target)
    with pytest.raises(DataError, match="'sd-2'; got 'sd-1'"):
        with_latents(data, target, vae="sd-2")
    Image.new("RGB", (64, 32)).save(folder / "images" / "more.png")
    more = JsonlMatching(write_jsonl(folder, [*ROWS, {"image": "more.png", "caption": "x"}]), 16)
    with pytest.raises(DataError, match=r"train.jsonl:5: .*1 of 5 images, e.g. more.png"):
        with_latents(more, target)
    Image.new("RGB", (640, 320)).save(folder / "images" / "red.png")
    with pytest.raises(DataError, match=r"train.jsonl:1: .*another data set: its red.png has"):
        with_latents(data, target)


def test_bad_latents(folder):
    data = JsonlMatching(write_jsonl(folder, ROWS), 16)
    target = folder / "latents"
    with pytest.raises(DataError, match=r"train.jsonl:1: expected a finite latent of red.png"):
        precompute(data, lambda images: encode(images) / 0, target, progress=False)
    precompute(data, encode, target, progress=False)
    shard = target / "latents-00000.safetensors"
    (target / "index.json").unlink()
    with pytest.raises(DataError, match="does not belong"):
        precompute(data, encode, target, vae="another", progress=False)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        with_latents(data, target)
    (target / "index.json").write_text("{}")
    with pytest.raises(DataError, match="is not what precompute"):
        with_latents(data, target)
    with pytest.raises(DataError, match="one common image folder and size"):
        precompute([data, JsonlMatching(data._records.path, 32)], encode, folder / "both")
