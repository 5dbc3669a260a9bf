"""Checkpoints in and out, and what a file that is none is told."""

from __future__ import annotations

import pickle

import pytest
import torch
from benchmark_runs import invoke
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpt_core import AdapterConfig, Checkpoint, CheckpointError, DiscriminativeAdapter
from dpt_core import load_checkpoint as load
from dpt_core import save_checkpoint as save
from dpt_core.lora import lora_key

CONFIG = AdapterConfig(
    in_channels=24,
    text_width=20,
    width=32,
    heads=4,
    feed_forward=48,
    encoder_layers=2,
    decoder_layers=2,
    matching_queries=3,
    grounding_queries=7,
    classes=11,
    contrastive_width=6,
    phrase_width=12,
    tap="up2",
    patch=2,
    text="pooled",
)


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    module = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
    lora = {lora_key(module, "down"): torch.randn(4, 8), lora_key(module, "up"): torch.randn(8, 4)}
    return Checkpoint(CONFIG, DiscriminativeAdapter(CONFIG).eval(), lora)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_round_trip(checkpoint, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save(path, checkpoint)
    again = load(path)
    assert again.config == CONFIG
    assert same(again.adapter.state_dict(), checkpoint.adapter.state_dict())
    assert same(again.lora, checkpoint.lora)
    assert not any(parameter.requires_grad for parameter in again.adapter.parameters())
    assert not again.adapter.training
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def published(checkpoint, path):
    torch.save({**checkpoint.adapter.state_dict(), **checkpoint.lora}, path)
    return path


def test_sizes_are_read_off_the_tensors(checkpoint, tmp_path):
    path = published(checkpoint, tmp_path / "pytorch_model.bin")
    again = load(path, heads=4, matching_queries=3, tap="up2", text="pooled")
    assert again.config == CONFIG
    assert same(again.lora, checkpoint.lora)


def test_stage_1(checkpoint, tmp_path, caplog):
    path = published(Checkpoint(CONFIG, checkpoint.adapter), tmp_path / "pytorch_model.bin")
    with caplog.at_level("INFO"):
        assert load(path, matching_queries=3, heads=4).lora == {}
    assert "no LoRA" in caplog.text


def test_half_precision_files_give_a_float32_adapter(checkpoint, tmp_path):
    checkpoint.adapter.half()
    path = tmp_path / "adapter.safetensors"
    save(path, checkpoint)
    assert {tensor.dtype for tensor in load(path).adapter.state_dict().values()} == {torch.float32}


def test_convert(checkpoint, tmp_path):
    source = published(checkpoint, tmp_path / "pytorch_model.bin")
    target = tmp_path / "dpt.safetensors"
    assert "2 LoRA tensors" in invoke("convert", source, target, "--tap", "up2")
    with safe_open(target, "pt") as file:
        names = set(file.keys())
    assert names == {f"adapter.{key}" for key in checkpoint.adapter.state_dict()} | {
        f"lora.{key}" for key in checkpoint.lora
    }
    assert load(target).config.tap == "up2"


def test_convert_says_why_not(tmp_path):
    said = invoke("convert", tmp_path / "no.bin", tmp_path / "to.st", code=2)
    assert "no DPT checkpoint" in said


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.bin"])
def test_garbage(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)


def test_code_in_a_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickle.dumps({"input_proj.weight": Evil()}))
    with pytest.raises(CheckpointError):
        load(path)
    torch.save({"input_proj.weight": Evil()}, path)
    with pytest.raises(CheckpointError):
        load(path)
    assert not (tmp_path / "owned").exists()


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"vae.safetensors is no DPT adapter"):
        load(path)


def edited(checkpoint, path, edit):
    save(path, checkpoint)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    edit(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


EDITS = {
    "missing": (lambda t, m: t.pop("adapter.class_embed.bias"), "class_embed.bias"),
    "left over": (lambda t, m: t.update({"adapter.extra": torch.zeros(1)}), "extra"),
    "misshapen": (
        lambda t, m: t.update({"adapter.class_embed.bias": torch.zeros(2)}),
        "class_embed.bias",
    ),
    "strange LoRA": (lambda t, m: t.update({"lora.unet.x": torch.zeros(1)}), "no LoRA"),
    "config": (lambda t, m: m.update(dpt_config="{"), "not JSON"),
    "newer": (lambda t, m: m.update(dpt_config='{"novel": 1}'), "unknown fields"),
    "empty": (lambda t, m: m.update(dpt_config="{}"), "lacks"),
    "tap": (
        lambda t, m: m.update(dpt_config='{"in_channels":1,"text_width":1,"tap":"x"}'),
        "tap must be one of",
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_not_a_whole_checkpoint(case, checkpoint, tmp_path):
    edit, message = EDITS[case]
    path = edited(checkpoint, tmp_path / "adapter.safetensors", edit)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no DPT checkpoint"):
        load(tmp_path / "none.safetensors")


def test_only_safetensors_are_written(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="safetensors"):
        save(tmp_path / "adapter.bin", checkpoint)
