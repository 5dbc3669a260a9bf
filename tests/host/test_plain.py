"""Preset *plain*: the plain sampler's picture with its score, beside which a correction shows its
own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from dpt_pack.dpt_core.correction import Correction
from dpt_pack.nodes import ksampler
from dpt_pack.nodes.host.correction import with_self_correction
from dpt_pack.nodes.host.plain import with_scores_read
from dpt_pack.nodes.host.progress import REMEMBERED, PlainRuns, ShowPlainScores, ShowScores
from runs import corrected, latents, sample
from tiny_models import tiny_adapter, tiny_model, tiny_text

SAMPLING = {"seed": 7, "steps": 4, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0}  # fmt: skip


def run(preset: str, model, adapter, text: int = 1, **changed) -> tuple:
    """Latent and report of the node."""
    node = type("KSampler", (ksampler.KSampler,), {"hidden": SimpleNamespace(unique_id="1")})
    inputs = {"positive": tiny_text(text), "negative": tiny_text(2), "latent_image": latents(2),
              **SAMPLING, **changed}  # fmt: skip
    return node.execute(model=model, preset=preset, adapter=adapter, **inputs).result


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "euler_ancestral"])
def test_the_picture_is_the_plain_samplers(sampler, told):
    model, adapter = tiny_model("sd15"), tiny_adapter()
    latent, report = run("plain", model, adapter, sampler_name=sampler)
    assert torch.equal(latent["samples"], sample(model, latent=latents(2), sampler=sampler))
    assert report.shape == (1, 512, 768, 3)
    assert told[0].startswith("step 1 of 4: score ")
    assert told[-1].startswith("plain: ") and len(told[-1].split()[-1]) == 4


def test_a_correction_from_the_same_noise_shows_it(told):
    model, adapter = tiny_model("sd15"), tiny_adapter()
    run("plain", model, adapter)
    plain = [float(line.split("score ")[1].split()[0]) for line in told[:4]]
    told.clear()
    run("published", model, adapter)
    beside = [float(line.split("(plain ")[1].split(")")[0]) for line in told]
    assert beside == [*plain, plain[-1]]
    for changed in ({"seed": 8}, {"text": 3}, {"steps": 5}):
        told.clear()
        run("published", model, adapter, **changed)
        assert told and not any("plain" in line for line in told)


def test_the_report_shows_it(monkeypatch):
    drawn: list[tuple] = []

    def show(*given):
        drawn.append(given)
        return torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()

    monkeypatch.setattr(ksampler, "score_curves", show)
    model, adapter = tiny_model("sd15"), tiny_adapter()
    run("plain", model, adapter, seed=11)
    run("fast", model, adapter, seed=11)
    (plain, nothing), (_, behind) = drawn
    assert sorted(plain) == [0, 1, 2, 3] and not nothing
    assert behind == plain


def test_a_run_that_is_corrected_late_shows_it():
    """What a run began from is told by its first call, which need not be corrected."""
    model, adapter = tiny_model("sd15"), tiny_adapter()
    sample(with_scores_read(model, adapter, ShowPlainScores("1")), seed=12)
    listener = ShowScores("2")
    late = Correction(start_percent=0.5, end_percent=1.0)
    sample(with_self_correction(model, adapter, late, listener), seed=12)
    assert sorted(listener.plain) == [0, 1, 2, 3]
    assert min(listener.scores) > 0


def test_a_correction_is_taken_off():
    model, adapter = tiny_model("sd15"), tiny_adapter()
    moved, scores = corrected(model, adapter)
    listener = ShowPlainScores("1")
    assert torch.equal(sample(with_scores_read(moved, adapter, listener)), sample(model))
    assert not scores and len(listener.scores) == 4


def test_without_an_adapter_it_is_the_model_itself():
    model = tiny_model("sd15")
    assert with_scores_read(model, None, ShowPlainScores("1")) is model
    latent, _ = run("plain", model, None)
    assert torch.equal(latent["samples"], sample(model, latent=latents(2)))


def test_the_oldest_run_is_forgotten():
    runs = PlainRuns()
    for number in range(REMEMBERED + 1):
        runs.keep(str(number), {0: [float(number)]})
    assert not runs.of("0")
    assert runs.of("1") == {0: [1.0]}
