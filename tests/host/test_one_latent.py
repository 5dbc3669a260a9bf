"""A picture becomes a latent in one way, whatever its size and whoever reads it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from dpt_pack.nodes.alignment_score import AlignmentScore
from dpt_pack.nodes.ground_phrase import GroundPhrase
from tiny_models import (
    model_patcher,
    narrow,
    narrow_vae,
    randomise,
    tiny_adapter,
    tiny_text,
    unet_config,
)

SIZES = [(8, 8), (12, 20), (5, 3), (64, 64), (67, 93)]
"""Height and width: below 16 pixels, whole cells, and odd ones."""


def shown(node: type) -> type:
    """A node with the hidden inputs that the host's executor sets."""
    return type("Node", (node,), {"hidden": SimpleNamespace(unique_id="1")})


CHANNELS = 64
"""Twice the groups of a group norm, which takes no single number."""


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        model = model_patcher(narrow("sd15", unet_config("sd15") | {"model_channels": CHANNELS}))
        randomise(model.model.diffusion_model, 0)
        return model


@pytest.fixture(scope="module")
def adapter():
    return tiny_adapter(in_channels=2 * CHANNELS)


@pytest.fixture
def vae(monkeypatch):
    """A VAE that keeps what it encoded."""
    vae = narrow_vae(ch=CHANNELS, ch_mult=[1, 1, 1, 1], num_res_blocks=1)
    randomise(vae.first_stage_model, 0)
    vae.encoded = []
    plain = vae.encode

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        vae.encoded.append(pixels)
        return plain(pixels)

    monkeypatch.setattr(vae, "encode", encode, raising=False)
    return vae


@pytest.mark.parametrize("size", SIZES)
def test_score_and_boxes_read_the_same_latent(size, model, adapter, vae):
    images = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(2))
    mean, _, text = shown(AlignmentScore).execute(
        model, adapter, vae, images, tiny_text(1), timestep=500, draws=2, seed=0
    ).result  # fmt: skip
    assert -1 <= mean <= 1 and "image 1" in text
    shown(GroundPhrase).execute(
        *(model, adapter, vae, images, tiny_text(1)),
        **{"threshold": 0.0, "max_boxes": 10, "timestep": 500, "seed": 0},
    )
    scored, grounded = vae.encoded
    assert torch.equal(scored, grounded)
    assert all(side % 8 == 0 for side in scored.shape[1:3])
