"""Score-weighted tuning: its loss, what it reads, and that a run can be killed anywhere."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from benchmark_runs import invoke
from safetensors.torch import load_file

from dpt_core.checkpoint import load_checkpoint
from dpt_core.lora import lora_key, merge_lora, strengthened
from dpt_core.losses import score_weighted_loss
from dpt_core.training.data.examples import DataError
from dpt_core.training.reward_task import RewardConfig
from dpt_core.training.rewards import Reading, RewardPrompt, advantages, read_prompts
from dpt_core.training.tuning_settings import TuneSettings


def test_loss_has_the_gradient_of_the_published_one():
    torch.manual_seed(0)
    prediction, untuned, target = torch.randn(3, 4, 2, 5, 5).unbind()
    advantage = torch.tensor([-1.0, -0.2, 0.0, 0.9])
    prediction.requires_grad_()
    w = ((1 + advantage) / 2).view(-1, 1, 1, 1)
    good, bad = (prediction - target).square(), (2 * untuned - prediction - target).square()
    published = torch.autograd.grad((w * good + (1 - w) * bad).mean(), prediction)[0]
    ours = torch.autograd.grad(
        score_weighted_loss(prediction, untuned, target, advantage), prediction
    )[0]
    torch.testing.assert_close(ours, published)


def test_advantages_compare_within_a_prompt_and_scale_over_all():
    rewards = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.90, 0.91, 0.90, 0.91]])
    found = advantages(rewards)
    torch.testing.assert_close(found.sum(1), torch.zeros(2), atol=1e-5, rtol=0)
    assert found[0, 2] > 0.5 > 0.1 > found[1, 1] > 0
    assert found.abs().max() <= 1


def test_score_and_error_join_whatever_their_units():
    scores = torch.tensor([[0.1, 0.3, 0.5, 0.7]])
    errors = torch.tensor([[4000.0, 2000.0, 3000.0, 1000.0]])
    joined = Reading(scores, errors).joined(1.0)
    unit = (0.05**0.5) / 0.6  # deviation of the scores, of the first one's twice 0.3
    torch.testing.assert_close(joined * unit, torch.tensor([[-1.0, 0.0, 0.0, 1.0]]))
    torch.testing.assert_close(joined, Reading(scores, errors / 1e6).joined(1.0))
    for alone in (Reading(scores, torch.ones(1, 4)).joined(1.0), Reading(scores, errors).joined(0)):
        torch.testing.assert_close(advantages(alone), advantages(scores))


def test_prompts_of_both_kinds(tmp_path):
    plain = tmp_path / "prompts.txt"
    plain.write_text("a red circle\n\n  two blue squares \n")
    assert read_prompts(plain) == [RewardPrompt("a red circle"), RewardPrompt("two blue squares")]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "a cat", "negatives": ["a dog"]}\n{"prompt": "a tree"}\n')
    assert read_prompts(lines) == [RewardPrompt("a cat", ("a dog",)), RewardPrompt("a tree")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a prompt"),
        ("red\n", "expected a JSON object"),
        ('{"text": "a cat"}\n', '"prompt"'),
        ('{"prompt": "a cat", "negatives": "a dog"}\n', "negatives must list texts"),
    ],
)
def test_bad_prompts_say_where_and_what(content, message, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(path)


@pytest.fixture(scope="module")
def arguments(model_folder, tmp_path_factory):
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a red circle"}\n'
        '{"prompt": "a blue cross", "negatives": ["a red cross", "a blue circle"]}\n'
        '{"prompt": "two black squares"}\n'
    )
    return [
        "train", "reward", str(model_folder), str(model_folder / "dpt.safetensors"),
        "--prompts", str(prompts), "--steps", "2", "--draw-steps", "2", "--batch-size", "3",
        "--candidates", "2", "--rank", "2", "--rounds", "2", "--device", "cpu", "--save-every", "1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    invoke(*arguments, "--output", output)
    return output


def test_a_run_killed_anywhere_ends_the_same(arguments, whole, tmp_path):
    expected = load_checkpoint(whole / "dpt.safetensors").lora
    assert any("ff.net" in key for key in expected) and any("to_q" in key for key in expected)
    assert any(value.any() for key, value in expected.items() if "up" in key)
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    (killed / "dpt.safetensors").unlink()
    (killed / "round-1" / "dpt.safetensors").unlink()
    next((killed / "round-1" / "drawn").iterdir()).unlink()
    shutil.rmtree(killed / "round-1" / "tuning")
    shutil.rmtree(killed / "round-2")
    invoke(*arguments, "--output", killed)
    again = load_checkpoint(killed / "dpt.safetensors").lora
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[key], expected[key]) for key in expected)


def test_the_best_strength_of_the_first_round_is_kept(whole):
    """Later rounds go on from there; what they changed cannot be strengthened by itself."""
    for number, strengths in ((1, [1.0, 2.0, 3.0, 4.0]), (2, [1.0])):
        place = whole / f"round-{number}"
        found = json.loads((place / "development.json").read_text())
        assert found["strengths"] == strengths and len(found["figures"]) == len(strengths)
    kept = load_checkpoint(whole / "dpt.safetensors").lora
    first = [json.loads((whole / f"round-{n}" / "development.json").read_text()) for n in (1, 2)]
    best = [max(zip(each["figures"], each["strengths"], strict=True)) for each in first]
    number = 2 if best[1][0] >= best[0][0] else 1
    learned = load_checkpoint(whole / f"round-{number}" / "dpt.safetensors").lora
    strength = best[number - 1][1]
    for key, value in learned.items():
        wanted = value * strength if key.endswith("up.weight") else value
        torch.testing.assert_close(kept[key], wanted)


def test_a_strengthened_lora_is_the_lora_at_that_strength():
    layer = torch.nn.ModuleDict({"ff": torch.nn.Linear(4, 3)})
    lora = {lora_key("ff", "down"): torch.randn(2, 4), lora_key("ff", "up"): torch.randn(3, 2)}
    once, thrice = copy.deepcopy(layer), copy.deepcopy(layer)
    merge_lora(once, strengthened(lora, 3.0))
    merge_lora(thrice, lora, 3.0)
    torch.testing.assert_close(once["ff"].weight, thrice["ff"].weight)
    assert not torch.equal(once["ff"].weight, layer["ff"].weight)


def test_what_is_drawn_is_read_by_adapter_and_model(whole):
    found = load_file(next((whole / "round-1" / "drawn").iterdir()))
    assert found["scores"].shape == found["errors"].shape == found["latents"].shape[:2]
    assert (found["errors"] > 0).all() and len(found["errors"].unique()) > 1


def test_errors_that_weigh_nothing_are_not_read(arguments, tmp_path):
    invoke(*arguments, "--errors", "0", "--output", tmp_path)
    found = load_file(next((tmp_path / "round-1" / "drawn").iterdir()))
    assert found["scores"].any() and not found["errors"].any()


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [RewardConfig, TuneSettings])
def test_a_weight_of_errors_that_cannot_be_is_refused(kind, weight):
    with pytest.raises(ValueError, match="errors must be a number from 0 to 1000; got"):
        kind(errors=weight)


def test_a_run_of_another_method_is_refused(arguments, whole, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(whole, older)
    told = json.loads((older / "config.json").read_text())
    (older / "config.json").write_text(json.dumps({k: v for k, v in told.items() if k != "method"}))
    assert "other settings (method)" in invoke(*arguments, "--output", older, code=2)


def test_other_settings_are_refused(arguments, whole):
    said = invoke(*arguments, "--output", whole, "--control", code=2)
    assert "other settings (control)" in said


def test_the_control_denoises_whatever_the_score(arguments, tmp_path):
    few = [*arguments[: arguments.index("--rounds")], "--device", "cpu", "--control"]
    invoke(*few, "--output", tmp_path)
    columns = (tmp_path / "round-1" / "tuning" / "losses.csv").read_text().splitlines()[0]
    assert columns == "step,denoising"
