"""Score, correction, taps and boxes on small inputs, without any backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpt_core import TAPS, AdapterConfig, DiscriminativeAdapter, alignment_score, correct
from dpt_core.backbones.stable_diffusion import split_tap, unet_taps
from dpt_core.correction import RULES, score_gradient, step
from dpt_core.grounding import ground
from dpt_core.lora import lora_key, lora_updates, merge_lora
from dpt_core.plots import score_curves


def quadratic(z: torch.Tensor) -> torch.Tensor:
    return -(z**2).flatten(1).sum(1) / 2


def test_correct_moves_along_the_gradient():
    z = torch.randn(3, 4, 2, 2)
    corrected = correct(z, quadratic, 0.25)
    torch.testing.assert_close(corrected.gradient, -z)
    torch.testing.assert_close(corrected.latent, 0.75 * z)
    torch.testing.assert_close(corrected.score, quadratic(z))


def test_the_samplers_space_moves_by_the_same_vp_step():
    """`x = z / a`: correcting x and scaling is scaling and correcting z."""
    scale, z = 0.1, torch.randn(2, 4, 2, 2)
    in_x = correct(z / scale, lambda x: quadratic(scale * x), 0.25, input_scale=scale)
    torch.testing.assert_close(scale * in_x.latent, correct(z, quadratic, 0.25).latent)


def test_a_normalised_step_has_its_own_length():
    z = torch.randn(3, 4, 5, 5)
    for scale in (1.0, 1e-6, 1e6):
        moved = correct(z, lambda z, k=scale: k * quadratic(z), 0.1, rule="normalised").latent - z
        torch.testing.assert_close(moved.square().mean((1, 2, 3)).sqrt(), torch.full((3,), 0.1))
    x = z / 0.25  # the sampler's space, a = 0.25
    in_x = correct(x, lambda x: quadratic(0.25 * x), 0.1, input_scale=0.25, rule="normalised")
    torch.testing.assert_close(0.25 * in_x.latent - z, moved, atol=1e-5, rtol=1e-4)


def test_a_normalised_step_without_a_gradient_stays():
    z = torch.randn(2, 3)
    assert torch.equal(correct(z, lambda z: z.sum(1) * 0, 1.0, rule="normalised").latent, z)


def test_an_annealed_step_shrinks_with_the_noise():
    gradient, scale = torch.randn(2, 4, 3, 3), torch.tensor([0.1, 0.9]).view(2, 1, 1, 1)
    noise = 1 - scale**2
    moved = step(gradient, 20.0, scale, "annealed", noise)
    torch.testing.assert_close(moved, noise * step(gradient, 20.0, scale))
    z = torch.randn(3, 4, 2, 2)
    corrected = correct(z, quadratic, 0.5, rule="annealed", noise_variance=0.5)
    torch.testing.assert_close(corrected.latent, 0.75 * z)


@pytest.mark.parametrize("rule", RULES)
def test_inner_steps_follow_each_other(rule):
    z = torch.randn(2, 3)
    once = correct(z, quadratic, 0.1, rule=rule)
    twice = correct(once.latent, quadratic, 0.1, rule=rule)
    both = correct(z, quadratic, 0.1, rule=rule, inner_steps=2)
    torch.testing.assert_close(both.latent, twice.latent)
    assert torch.equal(both.score, once.score)


def test_impossible_steps():
    with pytest.raises(ValueError, match="step must be one of published, normalised"):
        correct(torch.randn(1, 2), quadratic, 1.0, rule="huge")
    with pytest.raises(ValueError, match="inner_steps must be at least 1"):
        correct(torch.randn(1, 2), quadratic, 1.0, inner_steps=0)


def test_rows_without_a_finite_gradient_stay():
    z = torch.randn(2, 4, 2, 2)
    z[1] = 0
    corrected = correct(z, lambda z: z.flatten(1).norm(dim=1).sqrt(), 0.25)  # ∞ at zero
    assert torch.equal(corrected.latent[1], z[1])
    assert not corrected.gradient[1].any()
    assert not torch.equal(corrected.latent[0], z[0])
    assert step(torch.full((1, 2), torch.nan), 1.0).tolist() == [[0.0, 0.0]]


def test_negative_strength():
    with pytest.raises(ValueError, match="at least 0"):
        correct(torch.zeros(1, 1), quadratic, -1.0)


def test_a_score_without_gradient():
    with pytest.raises(ValueError, match="no gradient"):
        correct(torch.zeros(1, 4), lambda z: quadratic(z.detach()), 1.0)


def test_half_precision_gradients_do_not_vanish():
    def tiny(z: torch.Tensor) -> torch.Tensor:
        return (z * 1e-3).half().float().sum(1) * 1e-9

    z = torch.ones(1, 4)
    _, plain = score_gradient(z, tiny)
    _, scaled = score_gradient(z, tiny, half=True)
    torch.testing.assert_close(scaled, torch.full_like(z, 1e-12), rtol=0.02, atol=0)
    assert not plain.any()  # why the score is scaled

    def steep(z: torch.Tensor) -> torch.Tensor:
        return (z.half() * 30).float().sum(1)

    _, gradient = score_gradient(z, steep, half=True)  # overflows at the largest scale
    torch.testing.assert_close(gradient, torch.full_like(z, 30.0))


def test_score_is_the_best_cosine():
    text = torch.tensor([[1.0, 0.0]])
    queries = torch.tensor([[[0.0, 3.0], [2.0, 0.0]], [[-1.0, 0.0], [1.0, 1.0]]])
    torch.testing.assert_close(alignment_score(queries, text), torch.tensor([1.0, 0.5**0.5]))
    with pytest.raises(ValueError, match="width 2, got 3"):
        alignment_score(queries, torch.zeros(1, 3))


@pytest.mark.parametrize("layers", [1, 2])
def test_matching_alone_equals_the_whole_adapter(layers):
    config = AdapterConfig(8, 12, width=32, feed_forward=32, decoder_layers=layers)
    adapter = DiscriminativeAdapter(config).eval()
    features, timesteps = torch.randn(2, 8, 3, 5), torch.tensor([3, 700])
    whole = adapter(features, timesteps)
    torch.testing.assert_close(adapter.match(features, timesteps), whole.query_text)
    assert whole.query_text.shape == (2, 10, 12)
    assert whole.logits.shape == (2, 100, 256)
    assert whole.boxes.shape == (2, 100, 4)


def test_patches_of_cells():
    """Four cells make one; where they do not divide the map, its edge is repeated."""
    adapter = DiscriminativeAdapter(AdapterConfig(8, 12, patch=2, width=32)).eval()
    features, timesteps = torch.randn(2, 8, 6, 4), torch.tensor([3, 700])
    with torch.no_grad():
        whole, cut = adapter(features, timesteps), adapter(features[:, :, :5, :3], timesteps)
        repeated = torch.cat((features[:, :, :5], features[:, :, 4:5]), 2)
        repeated = torch.cat((repeated[..., :3], repeated[..., 2:3]), 3)
        torch.testing.assert_close(cut, adapter(repeated, timesteps))
        for place in ((0, 0), (1, 1)):  # all four are seen
            features[:, :, place[0], place[1]] += 1
            assert not torch.equal(adapter(features, timesteps).boxes, whole.boxes)


def test_features_of_another_width():
    adapter = DiscriminativeAdapter(AdapterConfig(8, 12, width=32))
    with pytest.raises(ValueError, match="expects 8 channels at up1, got 9"):
        adapter(torch.zeros(1, 9, 2, 2), torch.zeros(1))


@pytest.mark.parametrize(
    "field, value",
    [("tap", "up9"), ("text", "last"), ("width", 30), ("patch", 0), ("matching_queries", 0)],
)
def test_config_says_what_it_expects(field, value):
    with pytest.raises(ValueError, match=field):
        AdapterConfig(**{"in_channels": 8, "text_width": 8, field: value})


def test_taps():
    widths = [320, 640, 1280, 1280]
    taps = unet_taps(widths)
    assert tuple(taps) == TAPS
    assert [taps[tap] for tap in ("bottom1", "mid", "up0", "up1", "up3")] == [
        640,
        1280,
        1280,
        1280,
        320,
    ]
    with pytest.raises(ValueError, match="3 levels"):
        split_tap("up3", 3)
    with pytest.raises(ValueError, match="tap must be one of"):
        split_tap("up4", 4)


def test_boxes():
    logits = torch.zeros(1, 2, 3)
    logits[0, 0, -1] = 100
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25], [0.25, 0.5, 0.5, 1.0]]])
    found = ground(logits, boxes, torch.tensor([[200, 100]]))
    assert found.boxes[0].tolist() == [[25, 75, 75, 125], [0, 0, 50, 200]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.0, 2 / 3]]))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(3, 5, bias=False)


def test_lora_goes_in_and_out():
    unet = nn.ModuleDict({"attn1": Attention()})
    before = unet["attn1"].to_q.weight.detach().clone()
    down, up = torch.randn(2, 3), torch.randn(5, 2)
    lora = {lora_key("attn1.to_q", "down"): down, lora_key("attn1.to_q", "up"): up}
    merge_lora(unet, lora, 0.5)
    torch.testing.assert_close(unet["attn1"].to_q.weight, before + 0.5 * up @ down)
    merge_lora(unet, lora, -0.5)
    torch.testing.assert_close(unet["attn1"].to_q.weight, before)
    with pytest.raises(ValueError, match="another model family"):
        merge_lora(nn.ModuleDict(), lora)
    with pytest.raises(ValueError, match="no counterpart"):
        list(lora_updates({lora_key("attn1.to_q", "down"): down}))
    with pytest.raises(ValueError, match="not a LoRA key"):
        list(lora_updates({"unet.x": down}))


def test_score_curves():
    drawn = score_curves({0: [0.1, 0.2], 1: [0.2, 0.4], 4: [0.3, 0.3]}, width=400, height=300)
    empty = score_curves({})
    assert drawn.shape == (300, 400, 3)
    assert empty.shape == (512, 768, 3)
    colours = {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # a line each


def test_plain_curves_are_drawn_behind_the_corrected_ones():
    ours = {step: [0.3 + 0.1 * step, 0.5] for step in range(3)}
    plain = {step: [0.3, 0.45] for step in range(5)}
    alone, both = score_curves(ours), score_curves(ours, plain)
    assert (alone != both).any()
    assert (score_curves(ours, {}) == alone).all()
    # What is dashed has their colours, paler.
    seen = [{tuple(pixel) for pixel in each.reshape(-1, 3).tolist()} for each in (alone, both)]
    assert any(red < 170 and blue > 200 for red, _, blue in seen[1] - seen[0])
