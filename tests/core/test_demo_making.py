"""The demo's recipe from its first stage to the files that ship, in a few steps of each."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from benchmark_runs import in_two_processes
from torch.nn.functional import cosine_similarity

from dpt_core.demo import dpt_stages, model
from dpt_core.demo.architectures import DIT, UNET
from dpt_core.demo.datasets import PairPictures
from dpt_core.demo.load import load_demo
from dpt_core.demo.making import STAGES, make_demo
from dpt_core.demo.recipe import Recipe
from dpt_core.demo.workspace import Workspace
from dpt_core.generation import Sampling
from dpt_core.training.config import LoopConfig


def hasty() -> Recipe:
    """Every stage in one or two steps."""
    recipe = Recipe(pairs=4, sample=2, previews=1, cached_examples=5)
    stages = {
        field.name: replace(getattr(recipe, field.name), steps=1, batch_size=2)
        for field in fields(recipe)
        if isinstance(getattr(recipe, field.name), LoopConfig)
    }
    tuning = replace(
        recipe.score_tuning, loop=replace(recipe.score_tuning.loop, steps=1, batch_size=2),
        sampling=Sampling(1, 2.5), candidates=2, strengths=(1.0, 2.0),
    )  # fmt: skip
    return replace(recipe, **stages, tuning_prompts=2, strength_every=2, score_tuning=tuning)


def test_every_stage_and_what_ships(tmp_path):
    make_demo(tmp_path, recipe=hasty())
    space = Workspace(tmp_path)
    for stage in STAGES[UNET]:
        assert space.file(stage.name).exists()
    for stage in ("denoiser_pretraining", "denoiser_finetuning", "probing", "tuning"):
        assert len(list((tmp_path / stage / "previews").glob("*.png"))) == 1
    size = sum(file.stat().st_size for file in (tmp_path / "export").iterdir())
    assert size <= 16e6
    demo = load_demo(tmp_path / "export")
    assert len(demo.checkpoint.lora) == 256
    shipped = demo.pipeline.unet.state_dict()
    for name, value in space.tensors("denoiser_finetuning").items():
        assert torch.equal(shipped[name], value.half().float())
    before = {stage: space.file(stage.name).stat().st_mtime_ns for stage in STAGES[UNET]}
    make_demo(tmp_path, recipe=hasty())
    after = {stage: space.file(stage.name).stat().st_mtime_ns for stage in STAGES[UNET]}
    assert before == after


def test_the_transformer_from_first_to_last(tmp_path, monkeypatch):
    monkeypatch.setattr(dpt_stages, "TRANSFER", 4)
    make_demo(tmp_path, recipe=hasty(), architecture=DIT)
    space = Workspace(tmp_path, architecture=DIT)
    for stage in STAGES[DIT]:
        assert space.file(stage.name).exists()
    for stage in ("transformer", "probing"):
        assert len(list((tmp_path / stage / "previews").glob("*.png"))) == 1
    demo = load_demo(tmp_path / "export", DIT)
    shipped = demo.pipeline.transformer.state_dict()
    for name, value in space.tensors("transformer").items():
        assert torch.equal(shipped[name], value.half().float())
    old, new = (each.checkpoint.adapter.state_dict() for each in (load_demo(), demo))
    assert (
        len(demo.checkpoint.lora) == 64
    )  # still without effect: one step moves the last layer alone
    moved = (new["query_embed.weight"] - old["query_embed.weight"]).norm()
    assert moved < 0.1 * old["query_embed.weight"].norm()  # one step from the shipped one


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_demo_making import hasty, make_demo
make_demo(sys.argv[1], "features", hasty())
"""


def test_two_processes_share_latents_and_features(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    in_two_processes(script, tmp_path / "run")
    space = Workspace(tmp_path / "run", hasty())
    assert not list(space.folder.glob("*-of-*"))
    backbone = space.backbone(model.new_unet())
    latents = space.tensors("latents")["latents"].float()
    means = [backbone.vae.encode(PairPictures(4)[index]).latent_dist.mean for index in range(4)]
    assert (cosine_similarity(latents.flatten(1), torch.stack(means).flatten(1)) > 0.99).all()
    vectors = space.tensors("features")["texts"]  # both were computed in bfloat16
    matching, _ = space.examples()
    wanted = [backbone.read(matching[index % 4].captions).vectors for index in range(5)]
    assert (cosine_similarity(vectors, torch.stack(wanted), dim=-1) > 0.99).all()


def test_unknown_stage(tmp_path):
    with pytest.raises(
        ValueError, match="the stages are text_encoder, autoencoder_pretraining, .*'soup'"
    ):
        make_demo(tmp_path, "soup", hasty())
