"""What all tests share: where the golden numbers are and how to build the models they came from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
GOLDEN = SHARED / "golden"
STACKS = ("sd21", "sd1x")

sys.path.append(str(ROOT))  # last, so that a host's `nodes` module wins over ours


class Stack:
    """One golden stack: tiny UNet, checkpoint, text and everything recorded from them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = GOLDEN / name
        self.checkpoint = self.folder / "pytorch_model.bin"
        self.unet_config = json.loads((self.folder / "unet_config.json").read_text())
        self.text = load_file(self.folder / "text.safetensors")

    def load(self, file: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{file}.safetensors")

    def load_run(self, name: str) -> dict[str, torch.Tensor]:
        """What was recorded of one sampling run."""
        recorded, prefix = self.load("trajectories"), f"{name}."
        return {
            key.removeprefix(prefix): recorded[key] for key in recorded if key.startswith(prefix)
        }

    def unet(self) -> torch.nn.Module:
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_config(self.unet_config)
        unet.load_state_dict(self.load("unet"))
        return unet.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden numbers; tests that need them skip where they are not."""
    if not GOLDEN.is_dir():
        pytest.skip("the golden numbers (../shared/golden) are not beside this checkout")
    return GOLDEN


@pytest.fixture(scope="session", params=STACKS)
def stack(request: pytest.FixtureRequest, golden: Path) -> Stack:
    return Stack(request.param)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the expected tensor's largest value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.fixture(scope="session")
def close():
    """Assert agreement relative to the expected tensor's maximum."""

    def check(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
        assert relative_error(actual, expected) <= tolerance

    return check


torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
