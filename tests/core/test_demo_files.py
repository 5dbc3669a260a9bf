"""The demo model through diffusers: loading, exporting, messages."""

from __future__ import annotations

import shutil

import pytest
import torch
from demo_files import demo_folder, write_model_folder, write_random_demo

from dpt_core.checkpoint import load_checkpoint
from dpt_core.demo.load import CHECKPOINT, load_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_folder(tmp_path_factory.mktemp("demo"))


def picture(pipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    output = pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="pt")
    return output.images


def test_loads_whole_and_frozen_and_leaves_the_random_state(folder):
    before = torch.get_rng_state()
    demo = load_demo(folder)
    assert torch.equal(torch.get_rng_state(), before)
    for part in (demo.pipeline.unet, demo.pipeline.vae, demo.pipeline.text_encoder):
        tensors = [*part.parameters(), *part.buffers()]
        assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors)
        assert {tensor.dtype for tensor in part.parameters()} == {torch.float32}
        assert not part.training
    assert picture(demo.pipeline).isfinite().all()
    assert demo.checkpoint.lora


def test_the_encoder_that_ships_adds_no_noise():
    """`dpt train` and diffusers' image-to-image sample the encoder's distribution."""
    found = load_demo().pipeline.vae.encode(torch.rand(1, 3, 128, 128) * 2 - 1).latent_dist
    torch.testing.assert_close(found.sample(), found.mean, atol=1e-3, rtol=0)


def test_export_is_an_ordinary_diffusers_directory(folder, tmp_path):
    from diffusers import DiffusionPipeline

    write_model_folder(tmp_path / "model", folder)
    exported = DiffusionPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    exported.set_progress_bar_config(disable=True)
    assert torch.equal(picture(exported), picture(load_demo(folder).pipeline))
    assert load_checkpoint(tmp_path / "model" / CHECKPOINT).lora


def test_missing_and_damaged_files_are_named(tmp_path):
    write_random_demo(tmp_path)
    shutil.move(tmp_path / "vae.safetensors", tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match="vae.safetensors.*dpt train demo"):
        load_demo(tmp_path)
    shutil.move(tmp_path / "kept", tmp_path / "vae.safetensors")
    (tmp_path / "unet.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="unet.safetensors is damaged"):
        load_demo(tmp_path)
    shutil.copy(tmp_path / "vae.safetensors", tmp_path / "unet.safetensors")
    with pytest.raises(ValueError, match="of another model"):
        load_demo(tmp_path)
