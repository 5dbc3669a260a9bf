"""From the grounding queries' answers to the boxes that are shown."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from dpt_core.annotation import annotate
from dpt_core.grounding import box_mask, ground, select_boxes

BOXES = torch.tensor([
    [10.0, 10, 50, 50],
    [60, 60, 90, 90],
    [12, 11, 50, 52],  # nearly the first
    [0, 0, 5, 5],
])  # fmt: skip
SCORES = torch.tensor([0.7, 0.9, 0.8, 0.1])


def test_confident_boxes_without_doubles():
    boxes, scores = select_boxes(BOXES, SCORES, threshold=0.3, max_boxes=10)
    assert torch.equal(boxes, BOXES[[1, 2]])
    assert torch.equal(scores, SCORES[[1, 2]])


def test_threshold_number_and_overlap():
    assert len(select_boxes(BOXES, SCORES, 0.0, 10, iou=1.0).boxes) == 4
    assert torch.equal(select_boxes(BOXES, SCORES, 0.0, 1).boxes, BOXES[[1]])
    exact = torch.tensor([0.5, 0.25, 0.75, 1.0])
    assert select_boxes(BOXES, exact, 0.5, iou=1.0).scores.tolist() == [1.0, 0.75]


def test_nothing_found():
    for boxes, scores in ((BOXES, SCORES), (torch.zeros(0, 4), torch.zeros(0))):
        found = select_boxes(boxes, scores, threshold=0.95)
        assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)
    assert len(select_boxes(BOXES, torch.full((4,), torch.nan), 0.0).boxes) == 0


def test_many_random_boxes():
    """Sorted, above the threshold, none overlapping, and none dropped without a reason."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 80
    boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(200, 2, generator=generator)), 1)
    scores = torch.rand(200, generator=generator)
    kept, sure = select_boxes(boxes, scores, 0.4, 1000, iou=0.3)
    assert (sure.diff() <= 0).all() and (sure > 0.4).all()
    overlaps = box_iou(kept, kept).fill_diagonal_(0)
    assert (overlaps <= 0.3).all()
    for box, score in zip(boxes[scores > 0.4], scores[scores > 0.4], strict=True):
        better = sure >= score
        assert (box_iou(box[None], kept[better]) > 0.3).any() or (kept == box).all(1).any()


def test_ties_keep_the_earlier_query():
    boxes = torch.arange(40.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
    kept = select_boxes(boxes, torch.full((40,), 0.75), 0.5, 7).boxes
    assert torch.equal(kept, boxes[:7])
    same = select_boxes(BOXES[:1].repeat(5, 1), torch.full((5,), 0.75)).boxes
    assert torch.equal(same, BOXES[:1])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"boxes \[4, 4\] and scores \[3\]"):
        select_boxes(BOXES, SCORES[:3])
    with pytest.raises(ValueError, match="at least 1; got 0"):
        select_boxes(BOXES, SCORES, max_boxes=0)


def test_boxes_of_an_area():
    """A box in part of a picture, in the picture's pixels."""
    logits, boxes = torch.zeros(2, 1, 3), torch.tensor([0.5, 0.25, 0.5, 0.5]).repeat(2, 1, 1)
    sizes, origins = torch.tensor([[40, 80], [40, 80]]), torch.tensor([[0, 0], [100, 7]])
    found = ground(logits, boxes, sizes, origins)
    assert found.boxes[:, 0].tolist() == [[20, 0, 60, 20], [27, 100, 67, 120]]
    assert torch.equal(found.boxes[:1], ground(logits[:1], boxes[:1], sizes[:1]).boxes)
    torch.testing.assert_close(found.scores, torch.full((2, 1), 2 / 3))


def test_mask():
    tiny, corner = [5.4, 4.2, 5.45, 4.3], [7.9, 5.8, 8.0, 6.0]  # smaller than a pixel, yet there
    mask = box_mask(torch.tensor([[1.0, 1.9999, 4, 3], tiny, corner]), 6, 8)
    expected = torch.zeros(6, 8)
    expected[2, 1:4] = expected[4, 5] = expected[5, 7] = 1
    assert torch.equal(mask, expected)
    assert not box_mask(torch.zeros(0, 4), 6, 8).any()


BRIGHT = 170
"""Only letters are so bright in every channel on a dark picture; small ones are grey at the rim."""


def letters(drawn: np.ndarray) -> np.ndarray:
    return (drawn > BRIGHT).all(-1)


@pytest.mark.parametrize("side", [32, 64, 128, 512, 2048])
@pytest.mark.parametrize("box", [(0.2, 0.3, 0.8, 0.9), (0, 0, 1, 1), (0.9, 0.9, 1, 1)])
def test_labels_are_drawn_inside_the_picture(side, box):
    picture = np.full((side, side, 3), 80, np.uint8)
    boxes = [tuple(side * value for value in box)]
    drawn = annotate(picture, boxes, [0.87], "a blue square")
    assert drawn.shape == picture.shape and (picture == 80).all()
    assert letters(drawn).any(1).sum() >= max(6, side / 40)  # letters grow with the picture
    assert not np.array_equal(drawn, annotate(picture, boxes, [0.12], "a blue square"))
    assert side == 32 or not np.array_equal(drawn, annotate(picture, boxes, [0.87]))


def test_a_label_of_any_length_takes_no_time():
    """It is cut where it fits; letter by letter a page took minutes."""
    picture, boxes = np.zeros((256, 256, 3), np.uint8), [(10, 40, 200, 200)]
    long = annotate(picture, boxes, [0.87], "a blue square " * 1000)
    assert not np.array_equal(long, annotate(picture, boxes, [0.87], ""))
    start = time.perf_counter()
    annotate(picture, boxes, [0.87], "a blue square " * 5000)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("shape", [(1, 1), (8, 200), (300, 5)])
def test_pictures_too_small_for_a_label(shape):
    drawn = annotate(np.zeros((*shape, 3), np.uint8), [(0, 0, *shape[::-1])], [0.87], "it")
    assert drawn.shape == (*shape, 3) and drawn.any()


def test_labels_do_not_hide_each_other():
    picture = np.zeros((128, 128, 3), np.uint8)
    boxes = [(30.0, 30, 60, 60)] * 3
    once, thrice = (annotate(picture, boxes[:n], [0.5] * n, "x") for n in (1, 3))
    assert letters(thrice).sum() >= 3 * letters(once).sum()
    assert np.array_equal(annotate(picture, [], []), picture)
