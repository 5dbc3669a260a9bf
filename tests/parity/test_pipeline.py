"""Self-correction inside a whole diffusers pipeline, as docs/python.md shows it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from comfy_copy import find_comfyui
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dpt_core import PRESETS, load_checkpoint
from dpt_core.correction import MODES
from dpt_core.diffusers import self_correcting, text_vectors
from dpt_core.lora import merge_lora

PROMPTS = ["a red cube", "a blue sphere on the left of a green cone"]


@pytest.fixture
def pipeline(stack, golden) -> StableDiffusionPipeline:
    """A whole pipeline around the golden UNet."""
    torch.manual_seed(0)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            eos_token_id=49407,
            bos_token_id=49406,
        )  # fmt: skip
    )
    folder = find_comfyui() / "comfy" / "sd1_tokenizer"
    vae = AutoencoderKL(
        block_out_channels=[8] * 4,
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
    )
    scheduler = json.loads((golden / "scheduler_config.json").read_text())
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=encoder.eval(), unet=stack.unet(), safety_checker=None,
        tokenizer=CLIPTokenizer.from_pretrained(folder, model_max_length=77),
        scheduler=DDIMScheduler.from_config(scheduler), feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    settings = {"num_inference_steps": 3, "height": 128, "width": 128, "output_type": "latent"}
    return pipeline(PROMPTS, generator=generator, **settings).images


def test_text_vectors(pipeline):
    """The hidden state at the end-of-text token, whatever comes with the prompt."""
    vectors = text_vectors(pipeline, PROMPTS)
    for vector, prompt in zip(vectors, PROMPTS, strict=True):
        ids = pipeline.tokenizer(prompt, return_tensors="pt").input_ids
        torch.testing.assert_close(vector, pipeline.text_encoder(ids).last_hidden_state[0, -1])


def test_corrected_pipeline(pipeline, stack):
    checkpoint = load_checkpoint(stack.checkpoint)
    plain = sample(pipeline)
    text = text_vectors(pipeline, PROMPTS, checkpoint.config.text)
    with self_correcting(
        pipeline, checkpoint.adapter, text, replace(PRESETS["published"], strength=0.0)
    ):
        assert torch.equal(sample(pipeline), plain)
    with self_correcting(
        pipeline, checkpoint.adapter, text, replace(PRESETS["published"], strength=100.0)
    ) as run:
        moved = sample(pipeline)
    assert (moved - plain).norm() / plain.norm() > 1e-3
    assert [len(scores) for scores in run.scores] == [2, 2, 2]
    assert torch.equal(sample(pipeline), plain)
    merge_lora(pipeline.unet, checkpoint.lora)
    assert (sample(pipeline) - plain).norm() / plain.norm() > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_equal_calls_in_one_context_are_equal(mode, pipeline, stack):
    """What a run remembers ends with it."""
    checkpoint = load_checkpoint(stack.checkpoint)
    text = text_vectors(pipeline, PROMPTS, checkpoint.config.text)
    with self_correcting(
        pipeline, checkpoint.adapter, text, replace(PRESETS["published"], strength=100.0, mode=mode)
    ) as run:
        first = sample(pipeline)
        assert torch.equal(sample(pipeline), first)
    assert len(run.scores) == 2 * (3 - (mode == "lagged"))  # which takes no gradient at the end
