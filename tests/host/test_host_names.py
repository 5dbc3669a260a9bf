"""A UNet's LoRA that was tuned in ComfyUI, on a diffusers UNet."""

from __future__ import annotations

from copy import deepcopy

import comfy.utils
import pytest
import torch
from dpt_pack.dpt_core.demo.load import load_demo
from dpt_pack.dpt_core.host_names import unet_path
from dpt_pack.dpt_core.lora import GENERIC, lora_key, merge_lora
from real_files import real_config


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_blocks_are_counted_as_the_host_does(family):
    config = real_config(family).unet_config
    names = comfy.utils.unet_to_diffusers(config)
    attention = {own: host for own, host in names.items() if ".attentions." in own}
    assert len(attention) > 100
    for own, host in attention.items():
        path = unet_path(GENERIC + host.removesuffix(".weight"), 2)
        assert path == own.removesuffix(".weight")


def test_the_same_update_by_either_name():
    plain = load_demo().pipeline.unet
    hosts = {"down_blocks.0.attentions.1": "input_blocks.2.1", "mid_block.attentions.0":
             "middle_block.1", "up_blocks.2.attentions.0": "output_blocks.6.1"}  # fmt: skip
    rest, generator = "transformer_blocks.0.attn2.to_k", torch.Generator().manual_seed(0)
    by_own, by_host = {}, {}
    paths = dict(plain.named_modules())
    for own, host in hosts.items():
        weight = paths[f"{own}.{rest}"].weight
        for side, shape in (("down", (2, weight.shape[1])), ("up", (weight.shape[0], 2))):
            value = torch.randn(shape, generator=generator)
            by_own[lora_key(f"{own}.{rest}", side)] = value
            by_host[lora_key(f"{GENERIC}{host}.{rest}", side)] = value
    one, other = deepcopy(plain), deepcopy(plain)
    merge_lora(one, by_own)
    merge_lora(other, by_host)
    touched = [
        not torch.equal(*pair) for pair in zip(plain.parameters(), one.parameters(), strict=True)
    ]
    assert sum(touched) == len(hosts)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_name_that_nobody_has_is_told():
    lora = {lora_key(f"{GENERIC}input_blocks.99.1.attn1.to_q", side): torch.zeros(2, 2)
            for side in ("down", "up")}  # fmt: skip
    with pytest.raises(ValueError, match=r"down_blocks.32.attentions.2.attn1.to_q.*no such module"):
        merge_lora(deepcopy(load_demo().pipeline.unet), lora)
