"""Which part of a prompt holds, told from boxes, colours and scores that are known."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from dpt_core.annotation import mark_boxes
from dpt_core.cli.app import run
from dpt_core.colour_names import base_colour, colour_names, colour_share
from dpt_core.evaluation.explaining import Agreement
from dpt_core.explain import LEVELS, OTHERS_AT, Evidence, explain, questions
from dpt_core.explanation import draw, failed_mask
from dpt_core.grounding import Grounding
from dpt_core.locations import is_same, locate
from dpt_core.phrases import take_apart
from dpt_core.shapes.caption import hard_negative, imagine, word
from dpt_core.shapes.scene import CANVAS, RGB, Thing, compose, render
from dpt_core.verdicts import by_parts

SCENE = (Thing("circle", "red", "large", 30, 40), Thing("square", "blue", "small", 100, 90))


def seen(prompt: str, scene=SCENE, scores=None) -> Evidence:
    """What a faultless adapter reads: a phrase's boxes are all things of its shape, those of its
    colour surest."""
    boxes = {}
    asked = questions(take_apart(prompt))
    for phrase in (*asked.phrases, *asked.others):
        (named,) = take_apart(phrase).phrases
        things = [each for each in scene if each.shape == named.thing]
        confidences = [0.9 if each.colour in named.texts("colour") else 0.6 for each in things]
        found = Grounding(corners(things), torch.tensor(confidences))
        boxes[phrase] = [found] * len(asked.levels(phrase))
    return Evidence(render(scene), boxes, scores or {})


def corners(things) -> torch.Tensor:
    rows = [
        [c - s / 2 for c, s in zip(t.box[:2], t.box[2:], strict=True)]
        + [c + s / 2 for c, s in zip(t.box[:2], t.box[2:], strict=True)]
        for t in things
    ]
    return torch.tensor(rows).view(-1, 4) * CANVAS


def told(prompt: str, **more) -> dict[str, bool | None]:
    explanation = explain(take_apart(prompt), seen(prompt, **more))
    return {f"{part.kind}: {part.text}": part.held for part in explanation.parts}


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("a red circle left of a blue square", []),
        ("a red circle and a yellow cross",
         ["thing: no cross", "attribute: no yellow cross",
          "count: none instead of 1 yellow cross"]),
        ("a green circle and a blue square",
         ["attribute: no green circle", "count: none instead of 1 green circle"]),
        ("two red circles", ["count: 1 instead of 2 red circles"]),
        ("a red circle right of a blue square",
         ["relation: not: a red circle right of a blue square"]),
        ("a red circle above a blue square", []),
    ],
)  # fmt: skip
def test_what_fails_is_named(prompt, wrong):
    assert [text for text, held in told(prompt).items() if held is False] == wrong


def test_what_cannot_be_told():
    """Actions, denials, relations without a direction, and attributes that have no contrary."""
    parts = told("a happy red circle is dancing near a blue square without a cross")
    untold = [text for text, held in parts.items() if held is None]
    assert "attribute: happy circle" in untold and "rest: a cross" in untold
    assert "rest: dancing" in untold
    assert "relation: a happy red circle near a blue square" in untold
    assert parts["attribute: red circle"] is True
    nothing = explain(take_apart("quietly"), Evidence(render(SCENE), {}, {}))
    assert (nothing.share, nothing.held, nothing.failed) == (1.0, None, ())


def test_attributes_by_the_swapped_sentence():
    prompt, other = "a large red circle", "a small red circle"
    assert other in questions(take_apart(prompt)).sentences
    for lead, held in ((0.3, True), (-0.3, False), (0.02, None)):
        scores = {prompt: [0.5 + lead, 0.5 + lead], other: [0.5, 0.5]}
        parts = told(prompt, scores=scores)
        assert held in [value for text, value in parts.items() if "large circle" in text]


def test_faultless_reading_agrees_with_the_judge():
    """And where the picture shows a hard negative the same parts fail for both."""
    rng, agreement = random.Random("explain"), Agreement()
    for index in range(60):
        caption = imagine(rng)
        prompt = word(caption, rng).text
        scene = compose(caption if index % 2 else hard_negative(caption, rng), rng)
        explanation = explain(take_apart(prompt), seen(prompt, scene))
        agreement.add(explanation, render(scene), caption)
    figures = agreement.figures()
    assert figures["every part"]["agreement"] >= 0.97 and figures["every part"]["number"] > 200
    assert figures["all parts"]["agreement"] >= 0.95
    assert 0 < figures["all parts"]["holding"] < figures["all parts"]["number"]


def test_the_mask_is_where_to_repaint():
    def mask(prompt):
        return failed_mask(explain(take_apart(prompt), seen(prompt)), CANVAS, CANVAS)

    assert not mask("a red circle").any()
    recoloured = mask("a green circle and a blue square")
    assert recoloured[40, 30] == 1 and recoloured[90, 100] == 0 and recoloured.mean() < 0.3
    added = mask("a blue square and a yellow cross")  # nowhere: all but what holds
    assert added[90, 100] == 0 and added[40, 30] == 1 and added[5, 100] == 1
    assert mask("a red circle right of a blue square").all()  # both may have to move
    beside = mask("a yellow cross right of a blue square")  # the square may stay
    assert beside[90, 100] == 0 and beside[40, 30] == 1


def test_data_and_drawing():
    prompt = "a green circle left of a blue square"
    explanation = explain(take_apart(prompt), seen(prompt))
    assert explanation.failed[0] == "a green circle" and 0 < explanation.share < 1
    (verdict,) = by_parts(json.dumps([explanation.as_data()]))
    assert verdict.held is False and [part.held for part in verdict.parts] == [False, True, False]
    assert all(0 <= p.confidence <= 1 and (p.confidence >= 0.5) == p.held
               for p in explanation.parts if p.held is not None)  # fmt: skip
    picture = draw(render(SCENE), explanation)
    assert picture.dtype == np.uint8 and picture.shape[0] > picture.shape[1] >= 512
    assert (picture == (0xC8, 0x26, 0x1C)).all(-1).any()  # a red box
    marked = mark_boxes(render(SCENE), [((0, 0, 127, 127), "x" * 400, None)])
    assert marked.shape == (512, 512, 3)


def test_boxes_of_one_thing_are_one():
    a, shifted, other = (10, 10, 50, 50), (18, 4, 58, 44), (80, 80, 120, 120)
    assert is_same(a, shifted) and is_same(a, (24, 24, 36, 36)) and not is_same(a, other)

    def found(*pairs):
        return Grounding(torch.tensor([p[0] for p in pairs]).float().view(-1, 4),
                         torch.tensor([float(p[1]) for p in pairs]))  # fmt: skip

    readings = [found((a, 0.8), (shifted, 0.7)), found((shifted, 0.4), (other, 0.2))]
    first, second = locate([readings])
    assert first.sure(0) == pytest.approx(0.6) and second.sure(0) == pytest.approx(0.1)
    joined = locate([readings, [found((a, 0.9))] * 2])
    assert joined[0].confidences == pytest.approx({0: 0.6, 1: 0.9}) and len(joined) == 2
    (rivalled, *_) = locate([readings], [[found((a, 1.0))]], level=0)
    assert rivalled.sure(0) == pytest.approx(0.5)


def test_colours_of_pixels():
    names = colour_names(np.array(list(RGB.values()), np.uint8))
    assert names.tolist() == list(RGB)
    more = {"white": (250, 250, 245), "grey": (128, 128, 130), "brown": (139, 69, 19),
            "orange": (255, 150, 20), "pink": (255, 182, 193), "cyan": (40, 200, 210)}  # fmt: skip
    assert colour_names(np.array(list(more.values()), np.uint8)).tolist() == list(more)
    picture = render(SCENE)
    assert colour_share(picture, (10, 20, 50, 60), "red") == 1
    assert colour_share(picture, (-5, 300, 4, 310), "red") == 0  # outside: the nearest pixels
    assert (base_colour("light gray"), base_colour("plaid"), base_colour("")) == (
        "grey",
        None,
        None,
    )


def test_questions():
    asked = questions(take_apart("a red circle left of a blue square"))
    assert asked.phrases == ("a red circle", "a blue square")
    assert "a red square" in asked.others and asked.levels("a red square") == (LEVELS[OTHERS_AT],)
    assert asked.sentences == (
        "a red circle left of a blue square",
        "a red circle right of a blue square",
    )
    assert questions(take_apart("a red circle")).sentences == ()


def test_the_command_keeps_pictures_and_explanations(tmp_path, capsys):
    words = ["--pictures", "2", "--steps", "2", "--batch-size", "2", "--device", "cpu"]
    assert run(["evaluate", "explain", str(tmp_path), *words]) == 0
    told = json.loads((tmp_path / "explained.json").read_text())
    assert len(told["explained"]) == len(list(tmp_path.glob("*.png"))) == 2
    assert "every part" in capsys.readouterr().out
