"""An adapter trained in the host and one trained on the same model in diffusers are the same."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from demo_files import demo_folder
from dpt_pack.dpt_core.demo.architectures import DIT, UNET
from dpt_pack.dpt_core.demo.load import load_demo as load_for_diffusers
from dpt_pack.dpt_core.demo.scenes import demo_scenes
from dpt_pack.dpt_core.training.backbone import Backbone
from dpt_pack.dpt_core.training.loop import Interrupted
from dpt_pack.dpt_core.training.observer import Observer
from dpt_pack.dpt_core.training.pipeline_run import train_on_pipeline
from dpt_pack.dpt_core.training.recipe import RunSettings
from dpt_pack.nodes.host.demo import load_demo
from dpt_pack.nodes.host.encode import encode_prompt
from dpt_pack.nodes.host.training import train_on
from safetensors.torch import load_file
from toy_runs import StopAt, few

STEPS = 6


@pytest.fixture(autouse=True)
def small(monkeypatch):
    few(monkeypatch)


@pytest.mark.parametrize(("architecture", "tap"), [(UNET, "up2"), (DIT, "block3")])
def test_the_same_adapter(architecture, tap, tmp_path):
    """From the same seeds: the features are the same up to rounding, and from the same features the
    adapter is."""
    folder = demo_folder(tmp_path, architecture)
    demo, data = load_demo(folder, architecture), demo_scenes(40)
    settings = RunSettings(tap=tap, steps=STEPS, batch_size=4, examples=16, save_every=3)
    here, there = tmp_path / "host", tmp_path / "diffusers"

    def in_host(observer):
        encode = partial(encode_prompt, demo.clip)
        return train_on(demo.model, encode, demo.vae, data, settings, here, observer)

    def in_diffusers(observer):
        with torch.inference_mode(False):
            backbone = Backbone.of(load_for_diffusers(folder, architecture).pipeline)
            return train_on_pipeline(backbone, data, settings, there, observer)

    for train in (in_host, in_diffusers):
        with pytest.raises(Interrupted):
            train(StopAt("step"))
    for kept in ("features", "held-out"):
        (ours,) = (here / kept).iterdir()
        tensors, others = load_file(ours), load_file(there / kept / ours.name)
        assert tensors.keys() == others.keys()
        for name, value in tensors.items():
            apart = (value.float() - others[name].float()).norm()
            assert apart <= 2e-3 * value.float().norm(), name
        shutil.copy(ours, there / kept)
    for place in (here, there):  # both anew, from the same features
        shutil.rmtree(place / "training-4")
        (place / "held-out.json").unlink()
        (place / "best.safetensors").unlink(missing_ok=True)
    ours, theirs = in_host(Observer()), in_diffusers(Observer())
    assert ours.checkpoint.config == theirs.checkpoint.config
    assert len(ours.rows) == len(theirs.rows) == STEPS
    for rows, others in ((ours.rows, theirs.rows), (ours.history, theirs.history)):
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
    states = [each.checkpoint.adapter.state_dict() for each in (ours, theirs)]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-4, rtol=1e-4)
