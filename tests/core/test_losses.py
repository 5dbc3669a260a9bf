"""What must hold of the training losses, whatever the numbers."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch.nn.functional import normalize
from torchvision.ops import box_convert, generalized_box_iou

from dpt_core import AdapterConfig, DiscriminativeAdapter
from dpt_core.boxes import BoxTargets, grounding_hits
from dpt_core.losses import (
    LossWeights,
    MatchingPairs,
    Phrases,
    calibration_loss,
    contrastive_loss,
    denoising_loss,
    grounding_losses,
    probing_losses,
    recognition_loss,
    weighted_total,
)
from dpt_core.losses.contrastive import PAIRS
from dpt_core.matcher import match

QUERIES, CLASSES, LENGTH, WIDTH = 6, 9, 7, 5
NAMES = ("ce", "bbox", "giou", "contrastive_align")


def some_targets(*counts: int) -> BoxTargets:
    number = sum(counts)
    boxes = torch.cat((torch.rand(number, 2), torch.rand(number, 2) * 0.4 + 0.1), dim=1)
    tokens = torch.rand(number, LENGTH) < 0.4
    tokens[:, 0] = True
    return BoxTargets(boxes, tokens, counts)


def some_predictions(batch: int) -> list[torch.Tensor]:
    """Logits, boxes, unit queries and unit tokens."""
    return [
        torch.randn(batch, QUERIES, CLASSES),
        torch.rand(batch, QUERIES, 4),
        normalize(torch.randn(batch, QUERIES, WIDTH), dim=-1),
        normalize(torch.randn(batch, LENGTH, WIDTH), dim=-1),
    ]


def judge(predictions, targets, **settings) -> dict[str, torch.Tensor]:
    logits, boxes, queries, tokens = predictions
    return grounding_losses(logits, boxes, targets, queries, tokens, **settings)


def some_pairs(batch: int = 4, width: int = 8) -> MatchingPairs:
    queries = torch.randn(len(PAIRS) * batch, 3, width)
    return MatchingPairs.from_passes(queries, torch.randn(batch, 3, width))


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)


def test_images_without_boxes():
    """Only "no object" is left to learn; everything stays differentiable."""
    predictions = [each.requires_grad_() for each in some_predictions(2)]
    losses = judge(predictions, some_targets(0, 0))
    assert losses["bbox"] == losses["giou"] == losses["contrastive_align"] == 0
    nothing = -0.1 * predictions[0].log_softmax(-1)[..., -1].sum()
    torch.testing.assert_close(losses["ce"], nothing)
    weighted_total(losses, LossWeights()).backward()
    assert all(each.grad.isfinite().all() for each in predictions)


@pytest.mark.parametrize("masked", [False, True])
def test_batched_equals_single(masked):
    counts = (2, 0, 1, 4)
    targets, predictions = some_targets(*counts), some_predictions(len(counts))
    mask = torch.arange(LENGTH) < torch.tensor([[7], [5], [6], [1]]) if masked else None
    together = judge(predictions, targets, token_mask=mask)
    alone = dict.fromkeys(NAMES, 0.0)
    for image, first in enumerate((0, 2, 2, 3)):
        own = slice(first, first + counts[image])
        single = BoxTargets(targets.boxes[own], targets.tokens[own], counts[image : image + 1])
        rows = [each[image : image + 1] for each in predictions]
        row = None if mask is None else mask[image : image + 1]
        losses = judge(rows, single, token_mask=row)
        for name in NAMES:
            alone[name] += losses[name] * max(counts[image], 1) / sum(counts)
    for name in NAMES:
        torch.testing.assert_close(together[name], alone[name])


def test_the_order_of_targets_does_not_matter():
    targets, predictions = some_targets(2, 4), some_predictions(2)
    order = torch.tensor([1, 0, 4, 2, 5, 3])
    shuffled = BoxTargets(targets.boxes[order], targets.tokens[order], targets.counts)
    one, other = judge(predictions, targets), judge(predictions, shuffled)
    for name in NAMES:
        torch.testing.assert_close(one[name], other[name])


def test_a_perfect_prediction_costs_nothing():
    targets = some_targets(3)
    logits = torch.full((1, QUERIES, CLASSES), -50.0)
    logits[0, 3:, -1] = 50
    logits[0, :3].masked_fill_(targets.token_classes(CLASSES) > 0, 50)
    boxes = torch.rand(1, QUERIES, 4)
    boxes[0, :3] = targets.boxes
    losses = grounding_losses(logits, boxes, targets)
    entropy = targets.tokens.sum(1).float().log().sum() / 3  # of tokens that share a box
    torch.testing.assert_close(losses["ce"], entropy, atol=1e-4, rtol=1e-4)
    assert losses["bbox"] == 0 and losses["giou"].abs() < 1e-6
    assert losses["cardinality"] == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_matching_is_the_cheapest(seed):
    """Against trying everything, with classes sure enough to outweigh a place."""
    torch.manual_seed(seed)
    boxes = torch.rand(1, QUERIES, 4)
    logits = 20 * torch.randn(1, QUERIES, CLASSES)
    targets = BoxTargets(some_targets(3).boxes, torch.eye(3, LENGTH) > 0, (3,))
    classes = targets.token_classes(CLASSES)
    at = match(logits, boxes, targets, classes)
    assert len(at.queries.unique()) == 3

    def cost(queries: list[int]) -> float:
        found = boxes[0, queries]
        corners = [box_convert(each, "cxcywh", "xyxy") for each in (found, targets.boxes)]
        named = (logits[0, queries].softmax(-1) * classes).sum()
        far = (found - targets.boxes).abs().sum()
        return float(5 * far - named - 2 * generalized_box_iou(*corners).diag().sum())

    chosen = at.queries[at.targets.argsort()].tolist()
    assert cost(chosen) == min(map(cost, map(list, permutations(range(QUERIES), 3))))


def test_more_boxes_than_queries():
    targets = some_targets(QUERIES + 2)
    losses = judge(some_predictions(1), targets)
    assert all(losses[name].isfinite() for name in NAMES)


def test_padding_tokens():
    """Masked tokens neither count nor learn; without a mask they count, as published."""
    targets, predictions = some_targets(2, 1), some_predictions(2)
    targets.tokens[:, 4:] = False
    mask = (torch.arange(LENGTH) < 4).expand(2, -1)
    short = BoxTargets(targets.boxes, targets.tokens[:, :4], targets.counts)
    cut = [*predictions[:3], predictions[3][:, :4]]
    tokens = predictions[3].requires_grad_()
    masked = judge([*predictions[:3], tokens], targets, token_mask=mask)["contrastive_align"]
    torch.testing.assert_close(masked, judge(cut, short)["contrastive_align"])
    assert masked < judge(predictions, targets)["contrastive_align"]
    masked.backward()
    assert not tokens.grad[:, 4:].any()


def test_half_precision_predictions():
    """Autocast hands over half precision: the losses are float32 and near the full ones."""
    targets, predictions = some_targets(2, 1), some_predictions(2)
    rounded = [each.bfloat16() for each in predictions]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = judge(rounded, targets)
        matching = contrastive_loss(some_pairs(), 14.3)
    full = judge([each.float() for each in rounded], targets)
    for name in NAMES:
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], full[name])
    assert matching[0].dtype == torch.float32


def test_the_best_query_speaks():
    """One aligned query per right pair suffices, in both directions."""
    pairs = some_pairs(batch=2, width=64)
    pairs.image_queries[:, 0, 1] = pairs.texts[:, 0]
    pairs.text_queries[:, 0, 2] = pairs.texts[:, 0]
    assert all(loss < 1e-3 for loss in contrastive_loss(pairs, 100.0))


def test_equal_candidates_leave_chance():
    pairs = MatchingPairs(torch.ones(2, 3, 4, 8), torch.ones(2, 3, 4, 8), torch.ones(2, 3, 8))
    for loss in contrastive_loss(pairs, 14.3):
        torch.testing.assert_close(loss, torch.tensor(math.log(3)))


def test_passes_are_arranged():
    queries = torch.arange(10.0).reshape(10, 1, 1)  # five passes of two examples
    pairs = MatchingPairs.from_passes(queries, torch.ones(2, 3, 1))
    assert pairs.image_queries.flatten(1).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert pairs.text_queries.flatten(1).tolist() == [[0, 6, 8], [1, 7, 9]]


def test_further_wrong_images():
    """A sixth pass: one more candidate to contrast with and to calibrate by, none to recognise."""
    passes = torch.randn(6, 2, 3, 8)
    texts = torch.randn(2, 3, 8)
    five = MatchingPairs.from_passes(passes[:5].flatten(0, 1), texts)
    more = MatchingPairs.from_passes(passes.flatten(0, 1), texts)
    torch.testing.assert_close(more.text_queries[:, 3], passes[5])
    torch.testing.assert_close(recognition_loss(more, 9.0), recognition_loss(five, 9.0))
    (i2t, t2i), (same, fewer) = (contrastive_loss(each, 9.0) for each in (more, five))
    torch.testing.assert_close(i2t, same)
    assert t2i > fewer
    passes[5] = texts[:, :1]  # as good as right
    fooled = MatchingPairs.from_passes(passes.flatten(0, 1), texts)
    assert calibration_loss(fooled, 9.0) > calibration_loss(more, 9.0)


def test_accuracy_rules():
    """A box shifted on both axes leaves empty corners in the enclosing box: where the IoU is just
    above 0.5, the generalised IoU, the published rule, is already below."""
    truth = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    scores = torch.ones(1, 1)
    for shift, usual, published in ((0.02, True, True), (0.07, True, False), (0.1, False, False)):
        boxes = truth[:, None] + torch.tensor([shift, shift, 0, 0])
        assert grounding_hits(boxes, scores, truth).tolist() == [usual], shift
        assert grounding_hits(boxes, scores, truth, generalised=True).tolist() == [published]


def test_more_tries_find_more():
    boxes = torch.tensor([[[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.4, 0.4]]])
    scores, truth = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    assert not grounding_hits(boxes, scores, truth, top=1).any()
    assert grounding_hits(boxes, scores, truth, top=2).all()


def test_joined_targets_pad_their_tokens():
    boxes = [torch.full((2, 4), 0.5), torch.zeros(0, 4), torch.full((1, 4), 0.5)]
    tokens = [torch.ones(2, 3), torch.zeros(0, 5), torch.ones(1, 4)]
    targets = BoxTargets.join(boxes, tokens)
    assert targets.counts == (2, 0, 1)
    assert targets.tokens.sum(1).tolist() == [3, 3, 4] and targets.tokens.shape == (3, 5)
    assert targets.images().tolist() == [0, 0, 2]


@pytest.fixture
def adapter() -> DiscriminativeAdapter:
    return DiscriminativeAdapter(
        AdapterConfig(
            in_channels=4, text_width=8, width=16, heads=2, feed_forward=8, matching_queries=3,
            grounding_queries=QUERIES, classes=CLASSES, contrastive_width=WIDTH, phrase_width=10,
        )
    )  # fmt: skip


def test_probing_reaches_every_parameter(adapter):
    """One call differentiates the whole adapter, and the total is the weighted sum."""
    steps = torch.tensor([10, 500])
    features = torch.randn(2, 4, 6, 6)
    passes = adapter.match(features.repeat(5, 1, 1, 1), steps.repeat(5))
    losses = probing_losses(
        adapter,
        adapter(features, steps),
        some_targets(2, 1),
        MatchingPairs.from_passes(passes, torch.randn(2, 3, 8)),
        Phrases(torch.randn(2, LENGTH, 10)),
    )
    expected = sum(losses[name] for name in ("ce", "contrastive_align", "contrastive_i2t"))
    expected = expected + losses["contrastive_t2i"] + 5 * losses["bbox"] + 2 * losses["giou"]
    torch.testing.assert_close(losses["total"], expected)
    losses["total"].backward()
    idle = [name for name, parameter in adapter.named_parameters() if parameter.grad is None]
    assert not idle


def test_tuning_adds_the_denoising_loss(adapter):
    inputs = torch.randn(1, 4, 6, 6), torch.tensor([3])
    pairs = MatchingPairs.from_passes(
        adapter.match(*(each.repeat(5, *[1] * (each.ndim - 1)) for each in inputs)),
        torch.randn(1, 3, 8),
    )
    arguments = (adapter.eval(), adapter(*inputs), some_targets(1), pairs)
    probing = probing_losses(*arguments)
    tuning = probing_losses(
        *arguments, denoising=torch.tensor(0.5), weights=LossWeights(mse=2, contrastive_i2t=0)
    )
    torch.testing.assert_close(
        tuning["total"], probing["total"] - probing["contrastive_i2t"] + 2 * 0.5
    )
    assert "contrastive_align" not in probing and "mse" not in probing


def test_bad_targets_are_named():
    boxes, tokens = torch.full((2, 4), 0.5), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"boxes must be \[3, 4\]"):
        BoxTargets(boxes, tokens, (1, 2))
    with pytest.raises(ValueError, match=r"tokens must be \[2, L\]"):
        BoxTargets(boxes, tokens[:1], (1, 1))
    with pytest.raises(ValueError, match="width and a height above 0"):
        BoxTargets(boxes * torch.tensor([1, 1, 0, 1]), tokens, (2,))
    with pytest.raises(ValueError, match="a row of tokens"):
        BoxTargets.join([boxes], [tokens[:1]])
    with pytest.raises(ValueError, match="3 classes can name tokens 0 to 1; .* token 2"):
        BoxTargets(boxes, tokens, (2,)).token_classes(3)


def test_bad_predictions_are_named():
    targets = some_targets(1, 2)
    logits, boxes, queries, tokens = some_predictions(2)
    with pytest.raises(ValueError, match=r"boxes \[B, Q, 4\]"):
        grounding_losses(logits, boxes[:, :3], targets)
    with pytest.raises(ValueError, match="2 images, the predictions 1"):
        grounding_losses(logits[:1], boxes[:1], targets)
    with pytest.raises(ValueError, match="or neither"):
        grounding_losses(logits, boxes, targets, queries)
    with pytest.raises(ValueError, match="one per logit row"):
        grounding_losses(logits, boxes, targets, queries[:, :2], tokens)
    with pytest.raises(ValueError, match=r"expected tokens \[2, 7, 5\]"):
        grounding_losses(logits, boxes, targets, queries, tokens[:, :4])
    with pytest.raises(ValueError, match="diverged"):
        grounding_losses(logits * torch.nan, boxes, targets)


def test_bad_pairs_are_named(adapter):
    pairs = some_pairs()
    with pytest.raises(ValueError, match=r"queries \[B, T, Q, D\]"):
        contrastive_loss(pairs._replace(texts=pairs.texts[0]), 1.0)
    with pytest.raises(ValueError, match="different examples"):
        contrastive_loss(pairs._replace(texts=pairs.texts[:2]), 1.0)
    with pytest.raises(ValueError, match="another text encoder"):
        contrastive_loss(pairs._replace(texts=pairs.texts[..., :4]), 1.0)
    with pytest.raises(ValueError, match="5 passes of 3 examples; got 20 rows"):
        MatchingPairs.from_passes(torch.zeros(20, 3, 8), torch.zeros(3, 3, 8))
    output = adapter(torch.randn(1, 4, 6, 6), torch.tensor([3]))
    with pytest.raises(ValueError, match="width 10, got 4"):
        probing_losses(adapter, output, some_targets(1), pairs, Phrases(torch.zeros(1, LENGTH, 4)))


def test_bad_settings_are_named():
    latent = torch.zeros(2, 4, 8, 8)
    with pytest.raises(ValueError, match="at least 0"):
        LossWeights(giou=-1)
    with pytest.raises(ValueError, match="above 0"):
        LossWeights(temperature=0)
    with pytest.raises(ValueError, match="at least one of"):
        weighted_total({"cardinality": torch.zeros(())}, LossWeights())
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        denoising_loss(latent, latent[:1])
    with pytest.raises(ValueError, match="top must be between 1 and the number of boxes, 1"):
        grounding_hits(torch.zeros(1, 1, 4), torch.zeros(1, 1), torch.zeros(1, 4), top=2)
    with pytest.raises(ValueError, match="boxes and truth must be"):
        grounding_hits(torch.zeros(1, 1, 4), torch.zeros(1, 1), torch.zeros(2, 4))


def test_recognition_rewards_naming_what_the_image_shows():
    """Whatever text an image is seen with: own, own, own, hard, random in the five passes."""
    texts = torch.eye(12)[:6].view(2, 3, 12)
    shown = torch.stack([texts[:, place] for place in (0, 0, 0, 1, 2)])  # [5, B, D]
    right = MatchingPairs.from_passes(shown.flatten(0, 1)[:, None], texts)
    assert recognition_loss(right, 50.0) < 1e-6
    conditioned = torch.stack([texts[:, place] for place in (0, 1, 2, 0, 0)])
    parrot = MatchingPairs.from_passes(conditioned.flatten(0, 1)[:, None], texts)
    assert recognition_loss(parrot, 50.0) > 20
    chance = MatchingPairs.from_passes(torch.ones(10, 1, 12), texts)
    assert recognition_loss(chance, 50.0) == pytest.approx(math.log(6))


def test_recognition_does_not_tell_paraphrases_apart():
    texts = torch.eye(12)[:6].view(2, 3, 12).clone()
    texts[1] = texts[0]
    shown = torch.stack([texts[:, place] for place in (0, 0, 0, 1, 2)])
    pairs = MatchingPairs.from_passes(shown.flatten(0, 1)[:, None], texts)
    assert recognition_loss(pairs, 50.0) < 1e-6


def test_calibration_wants_one_threshold_for_all_texts():
    """Queries at a cosine c to the own text and d to the others; both examples alike, or not."""

    def pairs(cosines):  # [B, 5]
        own = torch.eye(4)[0].expand(len(cosines), 3, 4)
        queries = torch.zeros(5, len(cosines), 1, 4)
        queries[..., 0] = cosines.T[..., None]
        queries[..., 1] = (1 - queries[..., 0] ** 2).sqrt()
        return MatchingPairs.from_passes(queries.flatten(0, 1), own)

    told_apart = torch.tensor([[0.9, 0.1, 0.1, 0.1, 0.1]] * 2)
    assert calibration_loss(pairs(told_apart), 50.0) < 1e-6
    offset = told_apart.clone()
    offset[0] = torch.tensor([0.49, -0.31, -0.31, -0.31, -0.31])
    offset_loss = calibration_loss(pairs(offset), 50.0)
    assert offset_loss == pytest.approx(math.log1p(math.exp(0.5)) / 4, rel=1e-3)
    chance = pairs(torch.full((2, 5), 0.5))
    assert calibration_loss(chance, 50.0) == pytest.approx(math.log(2))
    assert contrastive_loss(pairs(offset), 50.0)[0] < 1e-6


@pytest.mark.parametrize("name", ["recognition", "calibration"])
def test_losses_of_ours_are_left_out_by_default(name):
    assert getattr(LossWeights(), name) == 0
    losses = {"ce": torch.tensor(1.0), name: torch.tensor(3.0)}
    assert weighted_total(losses, LossWeights()) == 1
    assert weighted_total(losses, LossWeights(**{name: 2.0})) == 7
