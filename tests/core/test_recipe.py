"""The demo's recipe from its first stage to the files that ship, in a few steps of each."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from benchmark_runs import in_two_processes
from torch.nn.functional import cosine_similarity

from dpt_core.demo import model
from dpt_core.demo.kitchen import Kitchen
from dpt_core.demo.load import load_demo
from dpt_core.demo.recipe import Recipe
from dpt_core.shapes.data import Scenes
from dpt_core.training.config import LoopConfig


def hasty() -> Recipe:
    """Every stage in one or two steps."""
    recipe = Recipe(pairs=4, sample=2, previews=1, seen=5)
    stages = {
        field.name: replace(getattr(recipe, field.name), steps=1, batch_size=2)
        for field in fields(recipe)
        if isinstance(getattr(recipe, field.name), LoopConfig)
    }
    return replace(recipe, **stages)


def test_every_stage_and_what_ships(tmp_path):
    kitchen = Kitchen(tmp_path, hasty())
    kitchen.make()
    for stage in kitchen.recipe.stages:
        assert kitchen.file(stage).exists()
    for stage in ("denoiser", "refined", "probing", "tuning"):
        assert len(list((tmp_path / stage / "previews").glob("*.png"))) == 1
    size = sum(file.stat().st_size for file in (tmp_path / "files").iterdir())
    assert size <= 16e6
    demo = load_demo(tmp_path / "files")
    assert len(demo.checkpoint.lora) == 256
    shipped = demo.pipeline.unet.state_dict()
    for name, value in kitchen._tensors("refined").items():
        assert torch.equal(shipped[name], value.half().float())
    before = {stage: kitchen.file(stage).stat().st_mtime_ns for stage in kitchen.recipe.stages}
    kitchen.make()
    after = {stage: kitchen.file(stage).stat().st_mtime_ns for stage in kitchen.recipe.stages}
    assert before == after


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_recipe import Kitchen, hasty
Kitchen(sys.argv[1], hasty()).make("features")
"""


def test_two_processes_share_latents_and_features(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    in_two_processes(script, tmp_path / "run")
    kitchen = Kitchen(tmp_path / "run", hasty())
    assert not list(kitchen.folder.glob("*-of-*"))
    backbone = kitchen.backbone(model.new_unet())
    latents = kitchen._tensors("latents")["latents"].float()
    means = [backbone.vae.encode(Scenes(4)[index]).latent_dist.mean for index in range(4)]
    assert (cosine_similarity(latents.flatten(1), torch.stack(means).flatten(1)) > 0.99).all()
    vectors = kitchen._tensors("features")["texts"]  # both were computed in bfloat16
    matching, _ = kitchen._pairs()
    wanted = [backbone.read(matching[index % 4].captions).vectors for index in range(5)]
    assert (cosine_similarity(vectors, torch.stack(wanted), dim=-1) > 0.99).all()


def test_unknown_stage(tmp_path):
    with pytest.raises(ValueError, match="the stages are text, crops, .*got 'soup'"):
        Kitchen(tmp_path, hasty()).make("soup")
