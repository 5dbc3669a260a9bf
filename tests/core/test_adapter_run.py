"""Training from any source of features: what is kept, what is folded back, which tap is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_training import CONFIG, Noise, Regression, losses

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.config import AdapterConfig
from dpt_core.demo.scenes import demo_scenes
from dpt_core.training import adapter_run, kept
from dpt_core.training.adapter_run import AdapterRun
from dpt_core.training.config import LoopConfig
from dpt_core.training.features import NoisedExamples, read_batch
from dpt_core.training.held_out import Figures, figures
from dpt_core.training.kept import Plan, folded, plan, strongest
from dpt_core.training.loop import Interrupted, train
from dpt_core.training.observer import Observer
from dpt_core.training.recipe import RECIPES, RunSettings
from dpt_core.training.tap_trial import choose_tap, compare_taps, parted, tried_taps

ALONE = replace(CONFIG, accumulate=1, ema=None)
CPU = torch.device("cpu")


def test_alone_is_as_with_accelerate(tmp_path):
    with_it = train(Regression(), Noise(), ALONE, tmp_path / "with")
    alone = train(Regression(), Noise(), ALONE, tmp_path / "alone", alone=CPU)
    assert losses(tmp_path / "with") == losses(tmp_path / "alone")
    for key, value in with_it.state_dict().items():
        assert torch.equal(alone.state_dict()[key], value)


def test_watch_ends_a_run_that_goes_on(tmp_path):
    train(Regression(), Noise(), ALONE, tmp_path / "whole", alone=CPU)
    seen = []

    def watch(row) -> bool:
        seen.append(row["step"])
        return row["step"] == 4

    with pytest.raises(Interrupted):
        train(Regression(), Noise(), ALONE, tmp_path / "parts", alone=CPU, watch=watch)
    train(Regression(), Noise(), ALONE, tmp_path / "parts", alone=CPU, watch=watch)
    assert seen == list(range(1, ALONE.steps + 1))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_alone_refuses_what_it_cannot():
    with pytest.raises(ValueError, match="has accumulate 1 and precision"):
        train(Regression(), Noise(), LoopConfig(1, 1, accumulate=2), "unused", alone=CPU)


class Source:
    """Features that are pictures, with what the text says added: `good` tells, `bad` is noise."""

    family, text, device = "unet", "eos_hidden", CPU

    def __init__(self) -> None:
        self.rows = 0
        generator = torch.Generator().manual_seed(0)
        self._mix = torch.randn(40, 3, generator=generator)

    def taps(self) -> dict[str, int]:
        return {"bottom0": 40, "up1": 40, "up2": 40}

    def read(self, taps, clean, noise, levels, texts):
        self.rows += len(texts)
        small = torch.nn.functional.avg_pool2d(clean, 16)
        seen = torch.einsum("kc,bchw->bkhw", self._mix, small)
        words = self.text_vectors(texts)[:, :1, None, None]
        found = {"up1": torch.randn_like(seen), "up2": seen + 0.1 * words}
        return {tap: found.get(tap, seen) for tap in taps}

    def text_vectors(self, texts):
        words = ("red", "green", "blue", "yellow", "purple", "black", "circle", "square")
        return torch.tensor([[float(word in text) for word in words] for text in texts])


def test_the_tap_that_tells_right_from_wrong():
    source = Source()
    assert tried_taps(source.taps()) == ["up1", "up2"]
    assert tried_taps({f"block{n}": 8 for n in range(30)}) == [
        "block5", "block9", "block14", "block19",
    ]  # fmt: skip
    examples = NoisedExamples(demo_scenes(60), 0, 80, level=700)
    found = compare_taps(source, ["up1", "up2"], [examples[n] for n in range(80)])
    assert found["up2"] > 0.6 > found["up1"] > 0.4
    assert choose_tap(found) == "up2"
    assert choose_tap({"a": 0.7, "b": 0.705}) == "a", "the earlier one costs less"


def test_figures():
    assert parted(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])) == 0.875
    scores = torch.tensor([[0.9, 0.1, 0, 0.95, 0], [0.8, 0.8, 0, 0.2, 0]])
    found = figures(scores)
    assert (found.itm, found.itm_images) == (0.5, 0.5)
    assert found.auc == pytest.approx((3 + 2.5) / 8)


def test_what_fits():
    assert plan(100, 1000, 64, 2e5) == Plan(100)
    assert plan(1000, 1024 * 100, 1024, 1000 * 256 * 100 * 2) == Plan(1000, 256)
    assert plan(1000, 1024 * 100, 1024, 600 * 256 * 100 * 2) == Plan(600, 256)
    assert plan(1000, 1024 * 100, 1024, 400 * 256 * 100 * 2) == Plan(0)
    assert plan(1000, 64 * 100, 64, 600 * 64 * 100 * 2) == Plan(600)
    assert plan(0, 1000, 64, 1e9) == Plan(0)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_folded_adapter_does_the_same(patch):
    features = torch.randn(3, 24, 6, 6) * torch.linspace(0.1, 3, 24)[:, None, None]
    projection = strongest(features, 8)
    torch.testing.assert_close(projection @ projection.T, torch.eye(8), atol=1e-5, rtol=0)
    kept_energy = torch.einsum("kc,nchw->nkhw", projection, features).square().sum()
    assert kept_energy > 0.6 * features.square().sum()
    small = AdapterConfig(8, 16, width=32, feed_forward=64, patch=patch, grounding_queries=4)
    adapter = DiscriminativeAdapter(small).eval()
    whole = folded(adapter, projection).eval()
    assert whole.config == replace(small, in_channels=24)
    levels = torch.tensor([100, 500, 900])
    fewer = torch.einsum("kc,nchw->nkhw", projection, features)
    for one, other in zip(adapter(fewer, levels), whole(features, levels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_run_in_fewer_channels(tmp_path, monkeypatch):
    """Features that do not fit are kept in fewer channels; the adapter reads all of them."""
    monkeypatch.setattr(kept, "CHANNELS", 8)
    monkeypatch.setattr(kept, "LEAST", 4)
    for name, count in (("HELD_OUT", 8), ("TRIED", 8), ("WHITENED", 8)):
        monkeypatch.setattr(adapter_run, name, count)
    source, data = Source(), demo_scenes(40)
    settings = RunSettings(steps=12, batch_size=4, examples=16, tap="up2")
    memory = 16 * 6 * 40 * 8 * 8  # half of what all channels take
    run = AdapterRun(source, data, data.images, tmp_path, settings, memory=memory)
    found = run.finish()
    assert found.checkpoint.config.in_channels == 40
    assert found.rows[-1]["total"] < found.rows[0]["total"]
    assert source.rows < 6 * (16 + 8 + 40)
    examples = NoisedExamples(data, 3, 2)
    features = read_batch(source, ["up2"], [examples[0]])["up2"][0]
    assert found.checkpoint.adapter(features, torch.tensor([500])).query_text.isfinite().all()


@pytest.mark.parametrize("stopped", [None, 5], ids=["at once", "stopped on the way"])
def test_the_best_weights_are_kept(tmp_path, monkeypatch, stopped):
    """By held-out pictures, at the run's own checkpoints: where it was stopped does not count."""
    monkeypatch.setattr(adapter_run, "HELD_OUT", 8)
    told = {3: 0.6, 5: 0.99, 6: 0.8, 9: 0.7, 12: 0.65}
    seen: dict[int, torch.Tensor] = {}

    def scores(adapter, kept) -> int:
        seen[len(steps)] = adapter.query_embed.weight.clone()
        return len(steps)

    monkeypatch.setattr(adapter_run, "scores", scores)
    monkeypatch.setattr(adapter_run, "figures", lambda step: Figures(0.5, 0.5, told[step]))
    steps: list[str] = []

    class Watch(Observer):
        def progress(self, what: str, done: int, total: int) -> None:
            if what.startswith("step"):
                steps.append(what)

        def stopped(self) -> bool:
            return len(steps) == stopped and stopped not in seen

    settings = RunSettings(steps=12, batch_size=4, examples=16, tap="up2", save_every=3)
    data = demo_scenes(40)

    def run() -> adapter_run.Trained:
        return AdapterRun(Source(), data, data.images, tmp_path, settings, {}, Watch()).finish()

    if stopped:
        with pytest.raises(Interrupted):
            run()
    found = run()
    assert found.best["step"] == 6 and found.history[-1]["step"] == 12
    assert torch.equal(found.checkpoint.adapter.query_embed.weight, seen[6])
    assert not torch.equal(seen[6], seen[12])


def test_settings_are_checked():
    with pytest.raises(ValueError, match="recipe must be one of recommended, published"):
        RunSettings(recipe="mine")
    with pytest.raises(ValueError, match="examples must be a whole number from 0 to 1000000"):
        RunSettings(examples=-1)
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 10000000; got 0"):
        RunSettings(steps=0)
    published = RECIPES["published"].adapter("unet", "eos_hidden", "up1", 1280, 32, 1024, True)
    assert published == AdapterConfig(in_channels=1280, text_width=1024)
