"""Metrics against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark_runs import TEXTS
from PIL import Image
from tiny_metrics import (
    SIDE,
    WORDS,
    TinyInception,
)

from dpt_core.evaluation.metrics import (
    blip_scores,
    clip_scores,
    frechet_distance,
    inception_outputs,
    inception_score,
    load_blip,
    load_clip,
    load_inception,
)
from dpt_core.evaluation.statistics import average

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 40, 48, 3), np.uint8)
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def pixels(size):
    """Pictures resized by Pillow, cut to a square in the middle, normalised as CLIP's."""
    images = [Image.fromarray(each).resize(size, Image.Resampling.BICUBIC) for each in PICTURES]
    left = (size[0] - SIDE) // 2
    cut = np.stack([np.asarray(image)[:, left : left + SIDE] for image in images])
    return (torch.from_numpy(cut).permute(0, 3, 1, 2) / 255 - CLIP_MEAN) / CLIP_STD


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_clip_scores(clip_folder):
    clip = load_clip(clip_folder)
    found, expected = clip_scores(clip, PICTURES, TEXTS), []
    for picture, text in zip(pixels((38, SIDE)), TEXTS, strict=True):  # 48 × 40, the short side 32
        ids = clip.processor.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            seen = clip.model.vision_model(picture[None]).pooler_output
            read = clip.model.text_model(ids).pooler_output
            seen = unit(seen @ clip.model.visual_projection.weight.T)
            read = unit(read @ clip.model.text_projection.weight.T)
        expected.append((seen * read).sum().item())
    assert found == pytest.approx(expected, abs=1e-5) and np.ptp(found) > 1e-3
    with pytest.raises(ValueError, match="a prompt per picture; got 1 for 3"):
        clip_scores(clip, PICTURES, TEXTS[:1])
    clip_scores(clip, PICTURES[:1], ["a red circle " * 100])  # cut


def test_blip_scores(blip_folder):
    blip, matching, contrastive = load_blip(blip_folder), [], []
    for picture, text in zip(pixels((SIDE, SIDE)), TEXTS, strict=True):
        ids = torch.tensor([[2, *map(WORDS.index, text.split()), 3]])
        with torch.no_grad():
            logits = blip.model(ids, picture[None], use_itm_head=True).itm_score
            cosine = blip.model(ids, picture[None], use_itm_head=False).itm_score
        matching.append((1 / (1 + (logits[0, 0] - logits[0, 1]).exp())).item())
        contrastive.append(cosine.item())
    found = blip_scores(blip, PICTURES, TEXTS)
    assert found[0] == pytest.approx(matching, abs=1e-5) and np.ptp(found[0]) > 1e-3
    assert found[1] == pytest.approx(contrastive, abs=1e-5) and np.ptp(found[1]) > 1e-3


def test_frechet_distance_and_inception_score():
    from scipy.linalg import sqrtm

    extractor = TinyInception()
    sets = [RNG.integers(0, 256, (30, 8, 8, 3), np.uint8), RNG.integers(50, 256, (40, 9, 9, 3))]
    real, made = (inception_outputs(extractor, list(each.astype(np.uint8))) for each in sets)
    found = frechet_distance([real.features[:7], real.features[7:]], [made.features])
    a, b = (each.features.astype(np.float64) for each in (real, made))
    covariances = np.cov(a.T), np.cov(b.T)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
    assert found == pytest.approx(expected, rel=1e-5) and found > 0.01
    assert frechet_distance([a], [a]) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="two pictures of each set; got 1"):
        frechet_distance([a], [b[:1]])

    likely = np.exp(made.logits.astype(np.float64))
    likely /= likely.sum(1, keepdims=True)
    gain = (likely * np.log(likely / likely.mean(0))).sum(1).mean()
    batches = [made.logits[:11], made.logits[11:]]
    assert inception_score(batches, splits=1).mean == pytest.approx(np.exp(gain), abs=1e-5)
    state = torch.random.get_rng_state()
    split = inception_score(batches)
    assert inception_score(batches) == split and 0 < split.deviation < split.mean
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pictures_of_many_sizes_are_read_one_by_one():
    extractor, pictures = TinyInception(), [PICTURES[0], PICTURES[1][:30]]
    both = inception_outputs(extractor, pictures)
    for place, picture in enumerate(pictures):
        alone = inception_outputs(extractor, [picture])
        assert np.allclose(both.features[place], alone.features[0], atol=1e-6)


def test_average_has_students_interval():
    values = np.array([1.0, 2, 3, 4, 10])
    reach = 2.776445 * values.std(ddof=1) / 5**0.5
    assert average(values) == pytest.approx((4, 4 - reach, 4 + reach, 5), abs=1e-5)
    assert average(np.ones(3))[:3] == (1, 1, 1)


@pytest.mark.parametrize("load", [load_clip, load_blip, load_inception])
def test_weights_that_are_not_there(load, tmp_path, clip_folder, blip_folder):
    with pytest.raises(FileNotFoundError, match="nothing is downloaded|Download"):
        load(tmp_path / "none")
    other = {load_clip: blip_folder, load_blip: clip_folder}.get(load)
    damaged = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1)}, damaged)
    with pytest.raises(ValueError, match="expected a (cl|bl)ip model|Inception v3"):
        load(other or damaged)
