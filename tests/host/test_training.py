"""Adapters trained inside the host: every family, cancelled and gone on with, leaving no trace."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management as management
import folder_paths
import psutil
import pytest
import torch
from dpt_pack.dpt_core.checkpoint import save_checkpoint
from dpt_pack.dpt_core.scene_prompts import put_together
from dpt_pack.dpt_core.shapes.caption import parse
from dpt_pack.dpt_core.shapes.scene import compose, render
from dpt_pack.dpt_core.training.loop import Interrupted
from dpt_pack.dpt_core.training.state import RunError
from dpt_pack.nodes.host.adapter import EXTENSIONS, load_adapter
from dpt_pack.nodes.host.backbones.registry import backbone_of
from dpt_pack.nodes.host.measure import measure
from dpt_pack.nodes.host.passes import with_passes
from dpt_pack.nodes.host.text_store import HostTexts
from dpt_pack.nodes.save_adapter import SaveAdapter
from dpt_pack.nodes.train_adapter import TrainAdapter
from dpt_pack.nodes.training_data import TrainingData
from test_no_leaks import everything
from tiny_models import tiny_clip, tiny_model, tiny_vae
from tiny_transformers import PRESENT, TINY
from toy_runs import (
    SETTINGS,
    UNET,
    StopAt,
    encode_for,
    few,
    latents_for,
    toy_data,
    toy_model,
    toy_run,
)

FAMILIES = [UNET, *PRESENT]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    few(monkeypatch)


def totals(trained) -> torch.Tensor:
    return torch.tensor([row["total"] for row in trained.rows])


def stacked(family: str, count: int) -> torch.Tensor:
    """Latents of some pictures."""
    return torch.stack([each.tensor for each in latents_for(family, toy_data(count)).values()])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family, tmp_path):
    """The loss falls, the file loads and scores, and the model is bit for bit what it was."""
    model = toy_model(family)
    before = everything(model)
    trained = toy_run(family, tmp_path / "run", model)
    assert everything(model) == before
    assert not any(module._forward_hooks for module in model.model.modules())
    losses = totals(trained)
    assert losses[-4:].mean() < 0.8 * losses[:4].mean()
    assert len(trained.history) == 3
    path = tmp_path / "adapter.safetensors"
    save_checkpoint(path, trained.checkpoint)
    adapter = load_adapter(str(path))
    assert adapter.config.family == ("unet" if family == UNET else family)
    assert adapter.config.tap in backbone_of(model.model).taps()
    if adapter.config.text == "mean":
        assert adapter.checkpoint.adapter.text_mean.abs().max() > 0
    latents = stacked(family, 2)
    found = measure(model, adapter, latents, encode_for(family)("picture 0 of 9"), 500, 1, 0)
    assert found.isfinite().all()


@pytest.mark.parametrize("family, memory", [(UNET, 2**30), ("qwen_image", 0), ("flux", 10**4)])
def test_rows_with_texts_of_their_own(family, memory, tmp_path):
    """Rows that pass together are as each alone, also where their texts differ in length, and
    where memory does not hold them."""
    found = {}
    latents = stacked(family, 4)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    texts, levels = ["a", "bb", "ccc", "dddd"], torch.tensor([100, 300, 700, 950])

    def work(passes) -> None:
        tap = "up1" if family == UNET else "block1"
        found["all"] = passes.read([tap], latents, noise, levels, texts)[tap]
        alone = [
            passes.read([tap], latents[n:][:1], noise[n:][:1], levels[n:][:1], texts[n:][:1])[tap]
            for n in range(4)
        ]
        found["alone"] = torch.cat(alone)

    model = toy_model(family)
    kept = HostTexts(encode_for(family), backbone_of(model.model), tmp_path, memory)
    with_passes(model, kept, latents[:1], work)
    assert len(kept.groups(texts)) == (1 if family == UNET else 2)
    files = len(list(tmp_path.iterdir()))
    assert files == 0 if family == UNET else 0 < files <= 5
    torch.testing.assert_close(found["all"], found["alone"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["held-out: 4", "features: 6", "step 5 ", "step 16 "])
def test_a_cancelled_run_goes_on(where, tmp_path):
    whole = toy_run(UNET, tmp_path / "whole")
    with pytest.raises(Interrupted):
        toy_run(UNET, tmp_path / "parts", observer=StopAt(where))
    again = toy_run(UNET, tmp_path / "parts")
    torch.testing.assert_close(totals(again), totals(whole), rtol=1e-6, atol=0)
    for key, value in whole.checkpoint.adapter.state_dict().items():
        torch.testing.assert_close(again.checkpoint.adapter.state_dict()[key], value)
    assert [each["step"] for each in again.history] == sorted(
        {each["step"] for each in whole.history} | ({5} if "5 " in where else set())
    )


def test_a_run_that_is_done_is_not_trained_again(tmp_path):
    first = toy_run(UNET, tmp_path)
    assert not (tmp_path / "features").exists()
    again = toy_run(UNET, tmp_path, observer=StopAt("step"))
    assert again.rows == first.rows and again.picture.size == first.picture.size
    with pytest.raises(RunError, match="steps is 24 there and 25 now"):
        toy_run(UNET, tmp_path, settings=replace(SETTINGS, steps=25))


def test_features_made_in_every_step(tmp_path):
    trained = toy_run("flux", tmp_path, settings=replace(SETTINGS, examples=0))
    losses = totals(trained)
    assert losses[-4:].mean() < losses[:4].mean()


def test_the_published_recipe_and_no_boxes(tmp_path):
    settings = replace(SETTINGS, recipe="published", tap="up0", learning_rate=1e-3)
    trained = toy_run(UNET, tmp_path, settings=settings, data=toy_data(boxes=False))
    config = trained.checkpoint.config
    assert (config.tap, config.encoder_layers, config.grounding_queries) == ("up0", 1, 0)
    assert not {"bbox", "recognition"} & set(trained.rows[0])
    losses = totals(trained)
    assert losses[-4:].mean() < losses[:4].mean()


def test_needs_neither_accelerate_nor_diffusers(tmp_path, monkeypatch):
    for name in ("accelerate", "diffusers", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(toy_run(UNET, tmp_path, settings=replace(SETTINGS, steps=3)).rows) == 3


def test_memory_stays_flat(tmp_path):
    """200 steps keep nothing of what passes through."""
    used, process = {}, psutil.Process()

    class Watch(StopAt):
        def progress(self, what: str, done: int, total: int) -> None:
            if what.startswith("step"):
                used[done] = process.memory_info().rss

    settings = replace(SETTINGS, steps=200, examples=0, batch_size=2, save_every=200)
    toy_run(UNET, tmp_path, settings=settings, observer=Watch("never"))
    assert used[200] - used[60] < 30 * 2**20


def test_out_of_memory_goes_smaller_once(tmp_path, monkeypatch):
    from dpt_pack.dpt_core.training import adapter_run

    real, sizes = adapter_run.LiveTask.forward, []

    def forward(self, batch):
        sizes.append(len(batch.timesteps))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError
        return real(self, batch)

    monkeypatch.setattr(adapter_run.LiveTask, "forward", forward)
    limit = 2
    trained = toy_run(UNET, tmp_path / "a", settings=replace(SETTINGS, batch_size=4))
    assert sizes[:2] == [4, 2] and len(trained.rows) == SETTINGS.steps
    limit = 1
    with pytest.raises(ValueError, match="out of memory with batches of 2: lower batch_size"):
        toy_run(UNET, tmp_path / "b", settings=replace(SETTINGS, batch_size=4))


def node(kind):
    """A node with the hidden inputs that the host's executor sets."""
    return type(kind.__name__, (kind,), {"hidden": SimpleNamespace(unique_id="1")})


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Folders of its own for what nodes write."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    models = [str(tmp_path / "models" / "dpt")]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "dpt", (models, EXTENSIONS))
    return tmp_path


INPUTS = {
    "recipe": "recommended", "tap": "auto", "steps": 4, "batch_size": 2, "learning_rate": 0.0,
    "examples": 4, "seed": 0, "run_name": "mine",
}  # fmt: skip


def test_the_nodes(output):
    """From lists of other nodes to a numbered file; cancelled on the way, and run again."""
    pictures = [torch.rand(2, 70, 64, 3), torch.rand(6, 64, 80, 3)]
    captions = [f"a red thing and {index} others" for index in range(8)]
    boxes = [[[{"x": 1, "y": 2, "width": 30, "height": 20, "label": "thing"}]] * 8]
    data, sheet = node(TrainingData).execute(
        ["demo scenes (2,000)"], ["none"], [64], pictures, captions, boxes
    ).result  # fmt: skip
    assert len(data.matching) == 8 and data.grounding[0].caption == "thing"
    assert sheet.ndim == 4 and 0 <= sheet.min() and sheet.max() <= 1
    model, clip, vae = tiny_model(UNET), tiny_clip(), tiny_vae()
    before = everything(model)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        node(TrainAdapter).execute(model, clip, vae, data, **INPUTS)
    assert not management.processing_interrupted()
    adapter, losses, report = node(TrainAdapter).execute(model, clip, vae, data, **INPUTS).result
    assert everything(model) == before
    assert len(losses["loss"]) == 4 and report.shape[-1] == 3
    assert adapter.config.text == "eos_hidden"
    for number in (1, 2):
        node(SaveAdapter).execute(adapter, "sub/mine")
        path = output / "models" / "dpt" / "sub" / f"mine_{number:05}_.safetensors"
        assert load_adapter(str(path)).config == adapter.config


def test_pictures_drawn_for_known_prompts():
    """A batch for each prompt, or a picture for each; the demo's shapes need no detector."""
    texts = ["a red circle left of a blue square", "three green triangles"]
    prompts = [
        put_together([("circle", "red", 1), ("square", "blue", 1)], "left of"),
        put_together([("triangle", "green", 3)]),
    ]
    shown = [texts[0], "a red circle right of a blue square", texts[1], "two green triangles"]
    scenes = [compose(parse(text), random.Random(index)) for index, text in enumerate(shown)]
    pictures = torch.stack([torch.from_numpy(render(scene)).float() / 255 for scene in scenes])
    given = {"folder": ["demo scenes (200)"], "negatives": ["auto"], "size": [128]}
    parts = [json.dumps(each.parts) for each in prompts]
    data, sheet = (
        node(TrainingData).execute(images=[pictures[:2], pictures[2:]], parts=parts, **given).result
    )
    assert [row.caption for row in data.matching] == shown
    assert [row.negative_images for row in data.matching] == [("1",), (), ("3",), ()]
    assert data.matching[1].negative_captions == (texts[0],)
    assert data.matching[0].negative_captions and len(data.grounding) == 6
    assert sheet.ndim == 4
    again, _ = (
        node(TrainingData)
        .execute(images=[pictures], parts=[parts[0], parts[0], parts[1], parts[1]], **given)
        .result
    )
    assert again.digest() == data.digest()
    for wrong, said in (
        ({"captions": ["one"], "parts": parts}, "captions too: wire the pictures"),
        ({"images": None, "parts": parts}, "no images: wire the pictures"),
        ({"parts": ["{", "{"]}, "expected parts as JSON, as DPT Scene Prompts gives them"),
        ({"parts": parts[:1] * 3}, "the parts of each image.*4 images, 3 parts"),
    ):
        with pytest.raises(ValueError, match=said):
            node(TrainingData).execute(**{"images": [pictures[:2], pictures[2:]], **given, **wrong})


def test_what_cannot_be_trained(output):
    data = toy_data()
    with pytest.raises(ValueError, match="run_name must be a name in"):
        node(TrainAdapter).execute(None or tiny_model(UNET), tiny_clip(), tiny_vae(), data,
                                   **{**INPUTS, "run_name": "../x"})  # fmt: skip
    with pytest.raises(ValueError, match="model is missing"):
        node(TrainAdapter).execute(None, None, None, data, **INPUTS)
    with pytest.raises(ValueError, match="tap must be auto or one of bottom0"):
        toy_run(UNET, output, settings=replace(SETTINGS, tap="block7"))


def test_transformers_are_all_here():
    assert set(FAMILIES) - {UNET} <= set(TINY)
