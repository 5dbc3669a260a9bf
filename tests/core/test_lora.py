"""The LoRA: how it starts, which layers it updates, and that a file holds what was trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dpt_core.demo import model
from dpt_core.lora import is_lora_key, lora_updates, merge_lora
from dpt_core.training.lora import ATTENTION, FEED_FORWARD, add_lora, lora_of


def call(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 77, model.TEXT_WIDTH, generator=generator)
    return unet(z, 500, text).sample


def tuned(layers) -> nn.Module:
    """A UNet with a LoRA that changes something."""
    torch.manual_seed(0)
    unet = model.new_unet().eval()
    add_lora(unet, 3, layers)
    for name, value in unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.1)
    return unet


def test_starts_as_published_at_every_width():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    wide = UNet2DConditionModel(
        block_out_channels=(320,), layers_per_block=1, cross_attention_dim=1280,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        norm_num_groups=32,
    )  # fmt: skip
    add_lora(wide, 4)
    lora = lora_of(wide)
    for width in (320, 1280):
        down = torch.cat([
            value.flatten() for key, value in lora.items()
            if key.endswith("down.weight") and value.shape[1] == width
        ])  # fmt: skip
        assert abs(float(down.std()) * 4 - 1) < 0.05
    assert not any(value.any() for key, value in lora.items() if key.endswith("up.weight"))


@pytest.mark.parametrize("layers", [ATTENTION, FEED_FORWARD, ATTENTION + FEED_FORWARD])
def test_a_merged_checkpoint_is_what_was_trained(layers, tmp_path):
    unet = tuned(layers)
    expected = call(unet)
    lora = lora_of(unet)
    assert all(map(is_lora_key, lora))
    ends = {next(end for end in layers if name.endswith(end)) for name, _ in lora_updates(lora)}
    assert ends == set(layers)
    path = tmp_path / "dpt.safetensors"
    save_checkpoint(path, Checkpoint(model.ADAPTER, DiscriminativeAdapter(model.ADAPTER), lora))
    torch.manual_seed(0)
    plain = model.new_unet().eval()
    assert (call(plain) - expected).abs().max() > 0.1 * expected.abs().max()
    merge_lora(plain, load_checkpoint(path).lora)
    difference = (call(plain) - expected).abs().max()
    assert (
        difference < 0.02 * expected.abs().max()
    )  # matmuls in another order, deep in a random net


def test_a_feed_forward_half_is_missed():
    lora = lora_of(tuned(FEED_FORWARD))
    lora.pop(next(key for key in lora if key.endswith("up.weight")))
    with pytest.raises(ValueError, match="no counterpart"):
        list(lora_updates(lora))


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        add_lora(model.new_unet(), 0)
