"""`dpt train adapter`: captioned pictures in, an adapter out."""

from __future__ import annotations

import pytest
import torch
from benchmark_runs import invoke
from demo_files import demo_folder, write_model_folder
from PIL import Image

from dpt_core.checkpoint import load_checkpoint
from dpt_core.shapes.pairs import scene_pair
from dpt_core.shapes.scene import render
from dpt_core.training import adapter_run

OPTIONS = ["--size", "128", "--steps", "4", "--batch-size", "2", "--examples", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(folder / "model", demo_folder(tmp_path_factory.mktemp("demo")))
    return folder / "model"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        pair = scene_pair(21, index)
        Image.fromarray(render(pair.scene)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(pair.text)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(adapter_run, "HELD_OUT", 8)
    monkeypatch.setattr(adapter_run, "TRIED", 8)


def train(model, pictures, output, *options, code=0):
    """The command with other options in place of its own."""
    given = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
    given |= dict(zip(options[::2], options[1::2], strict=True))
    words = [word for pair in given.items() for word in pair]
    return invoke("train", "adapter", model, pictures, "--output", output, *words, code=code)


def test_from_a_folder_to_a_file(model, pictures, tmp_path):
    output = tmp_path / "run"
    said = train(model, pictures, output)
    assert "12 pictures, 12 captions, 12 with a hard negative" in said
    assert "right text above wrong" in said and "wrote" in said
    checkpoint = load_checkpoint(output / "adapter.safetensors")
    assert checkpoint.config.family == "unet" and not checkpoint.config.grounding_queries
    assert (output / "report.png").stat().st_size > 1000
    before = checkpoint.adapter.state_dict()
    train(model, pictures, output)  # it is done
    after = load_checkpoint(output / "adapter.safetensors").adapter.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert "steps" in train(model, pictures, output, "--steps", "5", code=2)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--size", "100", "size"),
        ("--recipe", "soup", "recipe must be one of recommended, published"),
        ("--tap", "up9", "tap must be auto or one of"),
        ("--steps", "0", "steps"),
    ],
)
def test_what_cannot_be_trained(model, pictures, tmp_path, option, value, said):
    assert said in train(model, pictures, tmp_path / "run", option, value, code=2)
