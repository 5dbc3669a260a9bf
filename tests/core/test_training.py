"""The training loop: resume, averaging, curves, and the objective of probing and tuning."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from benchmark_runs import in_two_processes
from toy_training import CONFIG, Noise, Regression, losses

from dpt_core.training import loop
from dpt_core.training.config import LoopConfig
from dpt_core.training.loop import Batches, Interrupted, TrainingRun, train


def test_resumed_run_ends_like_an_unbroken_one(tmp_path):
    whole = train(Regression(), Noise(), CONFIG, tmp_path / "whole")
    with pytest.raises(Interrupted, match="step 4"):
        train(Regression(stop_at=8), Noise(), CONFIG, tmp_path / "broken")
    resumed = train(Regression(), Noise(), CONFIG, tmp_path / "broken")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == CONFIG.steps
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert (tmp_path / "whole" / "losses.png").stat().st_size > 1000


def test_finished_run_is_not_trained_again(tmp_path):
    first = train(Regression(), Noise(), CONFIG, tmp_path)
    again = Regression()
    train(again, Noise(), CONFIG, tmp_path)
    assert again.calls == 0
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    train(Regression(), Noise(), CONFIG, tmp_path)
    with pytest.raises(ValueError, match="other settings .*learning_rate"):
        train(Regression(), Noise(), LoopConfig(**{**vars(CONFIG), "learning_rate": 1}), tmp_path)


def test_previews_see_averaged_weights(tmp_path):
    seen = []
    task = train(
        Regression(), Noise(), CONFIG, tmp_path,
        preview=lambda task, path: seen.append((path.name, task.layers[0].weight.clone())),
    )  # fmt: skip
    assert [name for name, _ in seen] == ["0000005.png", "0000010.png", "0000012.png"]
    assert torch.equal(seen[-1][1], task.layers[0].weight)


def test_batches_cover_each_epoch_and_split_over_processes():
    config = LoopConfig(steps=5, batch_size=2)
    alone = [batch for batch in Batches(10, config)]
    assert sorted(sum(alone, [])) == list(range(10))
    assert list(Batches(10, config, start=3)) == alone[3:]
    both = [list(Batches(10, config, rank=rank, processes=2)) for rank in range(2)]
    assert both[0][0] == alone[0] and both[1][0] == alone[1]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    class Diverged(Regression):
        def forward(self, batch):
            return {"error": super().forward(batch)["error"] * torch.nan}

    with pytest.raises(FloatingPointError, match="step 1.*learning rate"):
        train(Diverged(), Noise(), CONFIG, tmp_path)


@pytest.mark.parametrize("field", ["steps", "batch_size", "accumulate", "save_every"])
def test_impossible_settings(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        LoopConfig(**{"steps": 1, "batch_size": 1, field: 0})


def test_half_of_a_cosine_is_the_beginning_of_a_whole_one(tmp_path):
    rates = {}
    for name, steps, part in (("whole", 22, 1.0), ("half", 12, 0.5)):  # two of them warm up
        config = replace(CONFIG, steps=steps, schedule="cosine", cosine_part=part)
        run = TrainingRun(Regression(), config, tmp_path / name, {})
        rates[name] = []
        for _ in range(12):
            rates[name].append(run._optimizer.param_groups[0]["lr"])
            run._schedule.step()
    assert rates["half"] == pytest.approx(rates["whole"][:12], abs=1e-12)
    assert rates["half"][-1] > CONFIG.learning_rate / 2
    with pytest.raises(ValueError, match="cosine_part must be in"):
        replace(CONFIG, cosine_part=0.0)


@pytest.mark.parametrize("slow", [True, False])
def test_bf16_gives_way_to_float32_where_the_cpu_lacks_it(slow, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loop, "slow_bf16", lambda: slow)
    train(Regression(), Noise(), replace(CONFIG, precision="bf16"), tmp_path / "bf16")
    train(Regression(), Noise(), CONFIG, tmp_path / "float32")
    assert (losses(tmp_path / "bf16") == losses(tmp_path / "float32")) == slow
    assert ("no instructions for bf16" in caplog.text) == slow


LAUNCHED = """
import sys, torch
from dpt_core.distributed import process_state
from dpt_core.training.loop import train
from toy_training import CONFIG, Noise, Regression
for stage in ("first", "run"):  # one after the other, as the demo's recipe has it
    task = train(Regression(), Noise(), CONFIG, {folder!r} + "/" + stage)
    process_state().wait_for_everyone()
weights = float(task.layers[0].weight.sum())
print(f"weights {{weights}} of {{process_state().num_processes}}")  # in one piece: two write here
"""


def test_many_processes_train_one_model(tmp_path):
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED.format(folder=str(tmp_path)))
    first, second = re.findall(r"weights (-?[\d.]+) of 2", in_two_processes(script))
    assert first == second
    assert [row["step"] for row in losses(tmp_path / "run")] == [str(n) for n in range(1, 13)]


NAN, ENDLESS = float("nan"), float("inf")
SETTINGS = [
    *[(name, value) for name in ("steps", "batch_size", "save_every") for value in (-1, 1.5, True)],
    *[(name, value) for name in ("steps", "seed", "workers") for value in ("3", None, 2**40)],
    *[(name, -1) for name in ("warmup", "workers", "seed")],
    *[(name, value) for name in ("learning_rate", "epsilon", "max_norm") for value in (0, -1, NAN)],
    ("learning_rate", ENDLESS), ("weight_decay", NAN), ("weight_decay", -1), ("betas", (1.0, 0.5)),
    ("betas", (NAN, 0.5)), ("ema", 1.0), ("ema", 0.0), ("ema", NAN), ("precision", "fp8"),
]  # fmt: skip


@pytest.mark.parametrize("field, value", SETTINGS)
def test_impossible_numbers(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        LoopConfig(**{"steps": 1, "batch_size": 1, field: value})
