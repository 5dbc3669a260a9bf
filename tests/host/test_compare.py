"""DPT_Compare: what is wired decides what is green, and the node shows its picture."""

from __future__ import annotations

import json

import pytest
import torch
from dpt_pack.dpt_core.verdicts import share
from dpt_pack.nodes.compare import Compare, verdicts_of
from PIL import Image
from test_server import node

RIGHT = (0x3D, 0xDC, 0x84)
PARTS = json.dumps([[{"text": "a green cross", "held": True}], [{"text": "it", "held": False}]])


def run(labels="plain, DPT", title="", threshold=-1.0, theme="dark", **wired) -> torch.Tensor:
    """The picture, made of lists as the host gives them."""
    wired.setdefault("images_1", [torch.rand(2, 32, 32, 3)])
    image = Compare.execute(
        labels=[labels], title=[title], threshold=[threshold], theme=[theme], **wired
    ).result[0]
    assert image.shape[0] == 1 and image.shape[3] == 3 and 0 <= image.min() <= image.max() <= 1
    return image


@pytest.mark.parametrize(
    ("given", "first", "threshold", "told"),
    [
        ([None], [None], -1.0, ""),
        ([0.5, 0.7], [0.5, 0.7], 0.6, "1 of 2"),
        ([[0.5, 0.7]], [None], 0.6, "1 of 2"),
        ([0.5, 0.7], [0.4, 0.8], -1.0, "1 of 2 better"),
        ([0.5, 0.7], [None], -1.0, ""),
        ([0.5, 0.7], [PARTS], -1.0, ""),
        ([PARTS], [0.4, 0.8], -1.0, "1 of 2"),
        ([*map(json.dumps, ([each] for each in json.loads(PARTS)))], [PARTS], 0.6, "1 of 2"),
    ],
)
def test_what_decides(given, first, threshold, told):
    """Explanations where there are some, else the threshold, else the first row."""
    assert share(verdicts_of(given, first, threshold)) == told


def test_rows_of_batches_and_lists():
    """Alpha, grey, sizes, lists and empty optional wires all make one picture."""
    mixed = [torch.rand(1, 20, 30, 4), torch.rand(1, 30, 20, 1)]
    two = run(images_2=mixed)
    more = {"images_3": [None], "scores_3": [None], "images_4": [torch.rand(2, 8, 8, 3)]}
    assert run(images_2=mixed, scores_2=[0.1, 0.9], **more).shape[1] > two.shape[1] > run().shape[1]


def test_a_strip_has_a_label_for_each_picture():
    strip = run(labels="0, 20", title="strength")
    row = run(labels="strength", title="strength")
    assert strip.shape[1] != row.shape[1]


def test_scores_of_other_pictures():
    with pytest.raises(ValueError, match="2 pictures and 3 verdicts"):
        run(scores_1=[0.1, 0.2, 0.3])


def test_on_the_server(server):
    """Scores and a list of pictures come over wires; the node shows its picture itself."""
    blank = {"width": 32, "height": 32, "batch_size": 1, "color": 0xFFFFFF}
    prompt = {
        "1": node("EmptyImage", **blank),
        "2": node("PrimitiveFloat", value=0.7),
        "3": node("PrimitiveString", value=PARTS[:-1].split(", [")[0] + "]"),
        "4": node(
            "DPT_Compare", images_1=["1", 0], scores_1=["2", 0], images_2=["1", 0],
            scores_2=["3", 0], labels="plain, DPT", title="", threshold=0.6, theme="dark",
        ),
    }  # fmt: skip
    saving = {"5": node("SaveImage", images=["4", 0], filename_prefix="compare")}

    def picture(prompt: dict, number: str) -> Image.Image:
        outcome = server.run(prompt)
        assert outcome.error is None, outcome.error
        return Image.open(server.output(outcome.outputs[number]["images"][0])).convert("RGB")

    shown, saved = picture(prompt, "4"), picture(prompt | saving, "5")
    assert shown.tobytes() == saved.tobytes()
    assert dict((colour, n) for n, colour in saved.getcolors(1 << 24))[RIGHT] > 5000
