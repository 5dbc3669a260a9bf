"""Files that are complete or not there."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from dpt_core.files import complete, json_line, write_bytes, write_json, write_tensors, write_text


def test_every_kind_is_written_whole(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_bytes(folder / "a.bin", b"one")
    write_text(folder / "a.txt", "é\n")
    write_text(folder / "b.txt", (f"{number}\n" for number in range(3)))
    tensor = torch.arange(6.0).view(2, 3).T.requires_grad_()  # not contiguous
    write_tensors(folder / "a.safetensors", {"x": tensor}, {"about": "x"})
    assert (folder / "a.bin").read_bytes() == b"one"
    assert (folder / "a.txt").read_bytes() == "é\n".encode()
    assert (folder / "b.txt").read_text() == "0\n1\n2\n"
    assert torch.equal(load_file(folder / "a.safetensors")["x"], tensor)
    assert len(list(folder.iterdir())) == 4


def test_what_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def pieces():
        yield "new"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_text(path, pieces())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_nothing_under_the_name(tmp_path):
    class Killed(BaseException):
        pass

    path = tmp_path / "a.jsonl"
    with pytest.raises(Killed), complete(path) as partial:
        partial.write_text("ne")
        raise Killed
    assert not path.exists() and not list(tmp_path.glob("*.jsonl"))
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_json_holds_no_nan(tmp_path):
    value = {"a": [float("nan"), 1.5, (float("inf"),)], "b": {"c": -float("inf")}, "d": 1}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"a": [None, 1.5, [None]], "b": {"c": None}, "d": 1}
    assert json_line(value).count("\n") == 1 and json.loads(json_line(value)) == json.loads(text)
