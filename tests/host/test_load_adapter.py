"""Load DPT Adapter where there is no file yet, and the adapter that ships."""

from __future__ import annotations

import folder_paths
import pytest
from dpt_pack.nodes.host.adapter import EXTENSIONS, register_model_folder
from dpt_pack.nodes.load_adapter import LoadAdapter


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A `models/dpt` without a file."""
    register_model_folder()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "dpt", ([str(tmp_path)], EXTENSIONS))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def options() -> list[str]:
    (entry,) = LoadAdapter.define_schema().inputs
    return entry.options


def test_says_that_there_is_nothing(empty):
    """The front end would show an empty list as *undefined*."""
    nothing = options()[0]
    assert nothing == "nothing in models/dpt yet"
    with pytest.raises(ValueError, match="holds no adapter.*pytorch_model.bin as it is.*press R"):
        LoadAdapter.execute(nothing)


def test_files_take_its_place(empty):
    (empty / "mine.safetensors").touch()
    (empty / "notes.txt").touch()
    assert options() == ["mine.safetensors", "the demo model's"]


def test_the_adapter_that_ships(empty):
    (loaded,) = LoadAdapter.execute(options()[-1]).result
    assert loaded.config.in_channels == loaded.checkpoint.adapter.input_proj.in_channels
    assert loaded.checkpoint.lora


def test_a_file_that_was_overwritten_is_another(empty):
    """The host asks whether it has to load it again."""
    path = empty / "mine.safetensors"
    path.write_bytes(b"one")
    before = LoadAdapter.fingerprint_inputs("mine.safetensors")
    assert before == LoadAdapter.fingerprint_inputs("mine.safetensors")
    path.write_bytes(b"another")
    assert before != LoadAdapter.fingerprint_inputs("mine.safetensors")
    path.unlink()
    assert LoadAdapter.fingerprint_inputs("mine.safetensors") == ""
