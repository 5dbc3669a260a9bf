"""Small models in directories, as users have them: made once, read only."""

from __future__ import annotations

import pytest
from demo_files import write_model_folder, write_random_demo
from tiny_metrics import write_blip, write_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory):
    return write_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A diffusers model directory with a checkpoint in it."""
    weights, folder = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("model")
    write_random_demo(weights)
    write_model_folder(folder, weights)
    return folder
