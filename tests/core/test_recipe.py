"""The demo's recipe from its first stage to the files that ship, in a few steps of each."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from dpt_core.demo.load import load_demo
from dpt_core.demo.recipe import Kitchen, Recipe
from dpt_core.training.loop import LoopConfig


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


def test_unknown_stage(tmp_path):
    with pytest.raises(ValueError, match="the stages are text, crops, .*got 'soup'"):
        Kitchen(tmp_path, hasty()).make("soup")
