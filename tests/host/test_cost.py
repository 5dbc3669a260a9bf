"""The benchmarks measure what they say."""

from __future__ import annotations

import sys

import pytest
import torch
from comfy_copy import ROOT

sys.path.append(str(ROOT))

from benchmarks import demo_work, in_comfyui, in_diffusers, startup, timing
from benchmarks.report import markdown
from benchmarks.sizes import floors

WAYS = {"plain", "off", "exact", "lagged", "published"}


@pytest.fixture(autouse=True)
def inference_mode():
    """Benchmarks choose themselves."""


@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_floors(name):
    """Fewest operations of a corrected step at 512², over those of a plain one."""
    found = floors(name, 64)
    assert found.exact == pytest.approx(1.576, abs=1e-3)
    assert found.lagged == pytest.approx(1.303, abs=1e-3)
    assert found.published == pytest.approx(1.803, abs=1e-3)


@pytest.mark.parametrize("host", [in_comfyui, in_diffusers])
def test_every_way_of_sampling_runs(host):
    runs = host.build("demo", "cpu", torch.float32, 1, 16)
    seconds = timing.interleaved(runs, 1)
    assert set(timing.ratios(seconds)) == WAYS
    assert all(second > 0 for found in seconds.values() for second in found)


@pytest.mark.parametrize("build", [demo_work.scoring, demo_work.denoising, demo_work.probing])
def test_work_and_the_passes_in_it(build):
    assert len(timing.ratios(timing.interleaved(build("cpu"), 1))) == 2


def test_runs_are_interleaved_and_the_first_repetition_is_not_counted():
    order = []

    def run(name):
        return lambda: order.append(name) or [len(order)]

    seconds = timing.interleaved({"plain": run("a"), "exact": run("b")}, 2)
    assert order == list("ababab")
    assert seconds == {"plain": [3, 5], "exact": [4, 6]}
    assert timing.ratios(seconds) == {"plain": 1, "exact": 5 / 4}


def test_peak_memory():
    def difference() -> int:
        sizes = (1, 64 << 20)
        small, large = (timing.peak_memory(lambda n=n: torch.ones(n), "cpu") for n in sizes)
        return large - small

    # What earlier tests left may be given back meanwhile.
    assert any(difference() == pytest.approx(256 << 20, rel=0.1) for _ in range(5))


def test_loading_the_published_adapter():
    load, read = startup.load_seconds(1)
    assert load > 0 and read > 0


def test_table():
    row = {
        "unet": "sd15", "host": "comfyui", "side": 32, "batch": 1, "seconds": 1.5,
        "ratios": {"plain": 1, "exact": 1.7}, "memory": {"exact": 1.1},
        "floors": {"exact": 1.576},
    }  # fmt: skip
    text = markdown({"machine": "M", "precision": "float32", "torch": "2", "steps": [row]})
    assert "| sd15 | comfyui | 1 × 32² | 1.5 s | – | 1.70 (1.58) | – | – | 1.10, – |" in text
