"""Files from strangers, damaged or crafted: each case, and what it must say, in time."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import in_time
from safetensors.torch import load_file, save_file

from dpt_core import (
    AdapterConfig,
    Checkpoint,
    CheckpointError,
    DiscriminativeAdapter,
    checkpoint,
    load_checkpoint,
    save_checkpoint,
    torch_files,
)
from dpt_core.lora import lora_key

CONFIG = AdapterConfig(
    in_channels=8, text_width=6, width=8, heads=2, feed_forward=8, matching_queries=2,
    grounding_queries=3, classes=5, contrastive_width=4, phrase_width=6, tap="up2",
)  # fmt: skip
MODULE = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = lora_key(MODULE, "down"), lora_key(MODULE, "up")
generated = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A whole checkpoint with a LoRA."""
    torch.manual_seed(0)
    lora = {DOWN: torch.randn(2, 4), UP: torch.randn(4, 2)}
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_checkpoint(path, Checkpoint(CONFIG, DiscriminativeAdapter(CONFIG), lora))
    return path


def refused(path: Path, says: str) -> None:
    """The file is refused with its name, what is wrong, and no advice to read it unsafely."""
    with in_time(), pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(path)
    assert path.name in str(caught.value)
    assert "weights_only" not in str(caught.value) and len(str(caught.value)) < 2000


# ---- configs ---------------------------------------------------------------------------------

SIZES = (
    "in_channels", "text_width", "patch", "width", "heads", "feed_forward", "encoder_layers",
    "decoder_layers", "matching_queries", "classes", "contrastive_width", "phrase_width",
)  # fmt: skip
WRONG = ("256", None, 0, -1, 1.5, True, 10**8, [8], {"a": 1}, 10**30)


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("field", SIZES)
def test_impossible_sizes(field, value):
    with in_time(), pytest.raises(ValueError, match=rf"{field} must be at least .*; got "):
        AdapterConfig(**{"in_channels": 8, "text_width": 6, field: value})


CONFIGS = {
    "tap": ({"tap": "up9"}, "tap must be one of .*'up9'"),
    "family": ({"family": "x"}, "family must be one of"),
    "family of another kind": ({"family": ["unet"]}, "family must be one of"),
    "tap of a transformer": ({"family": "flux"}, "tap of a transformer must be block0"),
    "tap of a transformer, a number": ({"family": "flux", "tap": 3}, "must be block0"),
    "tap of another kind": ({"tap": ["up1"]}, "tap must be one of"),
    "text": ({"text": 5}, "text must be one of .*; got 5"),
    "dropout": ({"dropout": 2}, r"dropout must be a number in \[0, 1\); got 2"),
    "dropout as text": ({"dropout": "0.1"}, "dropout must be"),
    "dropout below 0": ({"dropout": -0.1}, "dropout must be"),
    "dropout NaN": ({"dropout": float("nan")}, "dropout must be"),
    "queries below 0": ({"grounding_queries": -5}, "grounding_queries must be at least 0"),
    "heads": ({"heads": 3}, r"width must be a multiple of heads \(3\)"),
    "width": ({"width": 16}, "config says width 16, its tensors have 8"),
    "layers": ({"encoder_layers": 5}, "config says encoder_layers 5, its tensors have 1"),
    "layers, decoder": ({"decoder_layers": 64}, "says decoder_layers 64, its tensors have 1"),
    "channels": ({"in_channels": 9}, "says in_channels 9, its tensors have 8"),
    "patch": ({"patch": 2}, "says patch 2, its tensors have 1"),
    "classes": ({"classes": 7}, "says classes 7, its tensors have 5"),
    "queries": ({"grounding_queries": 30}, "says grounding_queries 30, its tensors have 3"),
    "unknown": ({"novel": 1}, r"unknown fields \['novel'\].*newer version"),
}  # fmt: skip

TEXTS = {
    "no JSON": ("{", "is not JSON"),
    "empty": ("", "is not JSON"),
    "a list": ("[]", "must be a JSON object"),
    "null": ("null", "must be a JSON object"),
    "empty object": ("{}", "lacks"),
    "deep": ("[" * 20_000 + "]" * 20_000, "not JSON"),
    "long": (" " * 70_000 + "{}", "70002 characters"),
    "many digits": ('{"in_channels": ' + "9" * 5_000 + "}", "not JSON|in_channels must be"),
    "twice": ('{"width": 8, "width": 8}', "twice"),
    "NaN": ('{"in_channels": NaN, "text_width": 6}', "in_channels must be"),
    "infinity": ('{"in_channels": Infinity, "text_width": 6}', "in_channels must be"),
}


def with_config(good: Path, path: Path, text: str) -> Path:
    save_file(load_file(good), path, {"dpt_config": text})
    return path


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_in_files(case, good, tmp_path):
    change, says = CONFIGS[case]
    text = json.dumps(json.loads(CONFIG.to_json()) | change)
    refused(with_config(good, tmp_path / "bad.safetensors", text), says)


@pytest.mark.parametrize("case", TEXTS)
def test_config_texts(case, good, tmp_path):
    text, says = TEXTS[case]
    refused(with_config(good, tmp_path / "bad.safetensors", text), says)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@generated
@given(values=st.dictionaries(st.sampled_from([*SIZES, "tap", "text", "dropout", "x"]), JSON))
def test_any_config_is_read_or_refused_by_name(values):
    with in_time():
        try:
            AdapterConfig.from_json(json.dumps({"in_channels": 4, "text_width": 4} | values))
        except ValueError as error:
            assert any(name in str(error) for name in values)


# ---- tensors ---------------------------------------------------------------------------------


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        tensors[name] = change(tensors[name]).contiguous()

    return edit


def put(name: str, value: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: value})


def removed(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.pop(name)


def holding(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.index_fill(0, torch.tensor([0]), value)


BIAS, PROJECTION = "adapter.class_embed.bias", "adapter.input_proj.weight"
EDITS = {
    "missing": (removed(BIAS), "missing .*class_embed.bias"),
    "no projection": (removed(PROJECTION), "no DPT adapter"),
    "no queries": (removed("adapter.query_embed.weight"), "query_embed.weight' is missing"),
    "left over": (put("adapter.extra", torch.zeros(1)), "left over .*extra"),
    "misshapen": (put(BIAS, torch.zeros(2)), r"class_embed.bias' must have the shape \[5\]"),
    "flat": (put(PROJECTION, torch.zeros(8)), "input_proj.weight' must have more than"),
    "a scalar": (put("adapter.query_embed.weight", torch.tensor(1.0)), "must have more than 0"),
    "empty": (put(BIAS, torch.zeros(0)), "shape"),
    "integers": (changed(BIAS, torch.Tensor.int), "floating numbers; got torch.int32"),
    "booleans": (changed(BIAS, torch.Tensor.bool), "floating numbers; got torch.bool"),
    "complex": (changed(BIAS, lambda t: t.to(torch.complex64)), "floating numbers"),
    "bytes": (changed(BIAS, lambda t: t.to(torch.uint8)), "got torch.uint8"),
    "NaN": (changed(BIAS, holding(float("nan"))), "class_embed.bias' must be finite"),
    "infinity": (changed(BIAS, holding(float("inf"))), "must be finite"),
    "beyond float32": (
        changed(BIAS, lambda t: holding(1e300)(t.double())), "class_embed.bias' must be finite"
    ),
    "named twice": (put("class_embed.bias", torch.zeros(5)), "are the same tensor"),
    "a third name": (put("lora.class_embed.bias", torch.zeros(5)), "are the same tensor"),
    "LoRA twice": (put(DOWN, torch.zeros(2, 4)), "are the same tensor"),
    "LoRA NaN": (changed(f"lora.{UP}", holding(float("nan"))), "must be finite"),
    "LoRA integers": (changed(f"lora.{UP}", torch.Tensor.int), "floating numbers"),
    "LoRA half": (removed(f"lora.{UP}"), "no counterpart"),
    "LoRA other half": (removed(f"lora.{DOWN}"), "no counterpart"),
    "LoRA ranks": (put(f"lora.{UP}", torch.zeros(4, 3)), r"of one rank; .*\[2, 4\].*\[4, 3\]"),
    "LoRA rank 0": (
        lambda t: t.update({f"lora.{UP}": torch.zeros(4, 0), f"lora.{DOWN}": torch.zeros(0, 4)}),
        "of one rank",
    ),
    "LoRA flat": (put(f"lora.{UP}", torch.zeros(8)), "of one rank"),
    "LoRA volume": (put(f"lora.{UP}", torch.zeros(4, 2, 1)), "of one rank"),
    "strange LoRA": (put("lora.unet.conv.weight", torch.zeros(1)), "are no LoRA"),
    "layers without end": (
        lambda t: t.update(
            {f"adapter.transformer.encoder.layers.{n}.x": torch.zeros(1) for n in range(500)}
        ),
        "encoder_layers must be|its tensors have|encoder_layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("case", EDITS)
def test_tensors(case, layout, good, tmp_path):
    edit, says = EDITS[case]
    tensors = load_file(good)
    edit(tensors)
    path = tmp_path / f"bad.{layout}"
    if layout == "bin":
        torch.save(tensors, path)
        says = f"{says}|grounding_queries must be"  # without a config, 10 of 5 queries match
    else:
        save_file(tensors, path, {"dpt_config": CONFIG.to_json()})
    refused(path, says)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_tensors_without_end(layout, good, good_bin, monkeypatch):
    for module in (checkpoint, torch_files):
        monkeypatch.setattr(module, "MOST_TENSORS", 20)
    path = {"safetensors": good, "bin": good_bin}[layout]
    refused(path, "at most 20 (tensors|entries)")


def test_the_good_file_is_read(good):
    again = load_checkpoint(good)
    assert again.config == CONFIG and again.lora.keys() == {DOWN, UP}


# ---- damaged files ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_bin(good, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "good.bin"
    torch.save(load_file(good), path)
    return path


def read_or_refused(path: Path) -> None:
    """A damaged byte may go unnoticed where it is a weight's; anything else is one error."""
    with in_time():
        try:
            load_checkpoint(path, heads=2, matching_queries=2, tap="up2")
        except CheckpointError as error:
            assert path.name in str(error) and "weights_only" not in str(error)


@generated
@given(data=st.data())
@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_damaged_bytes(layout, data, good, good_bin, tmp_path):
    source = {"safetensors": good, "bin": good_bin}[layout].read_bytes()
    damaged = bytearray(source)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(source) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        damaged[start : start + len(piece)] = piece
    path = tmp_path / f"bad.{layout}"
    path.write_bytes(damaged)
    read_or_refused(path)


@generated
@given(share=st.floats(0, 0.999))
@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_cut_off(layout, share, good, good_bin, tmp_path):
    source = {"safetensors": good, "bin": good_bin}[layout].read_bytes()
    path = tmp_path / f"bad.{layout}"
    path.write_bytes(source[: int(share * len(source))])
    refused(path, "cannot be read")


@generated
@given(content=st.binary(max_size=300))
def test_anything_under_the_name_of_a_torch_file(content, tmp_path):
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    refused(path, "cannot be read")


# ---- what a pickle could do ------------------------------------------------------------------


class Trap:
    """Runs when a careless reader unpickles it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def archive(path: Path, content: bytes, source: Path) -> Path:
    """A torch file with another table of contents."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            table = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, content if table else old.read(entry))
    return path


def crafted(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


VALUES: dict[str, tuple[Callable[[], object], str]] = {
    "a number": (lambda: 5, "expected a dictionary"),
    "a tensor": (lambda: torch.zeros(2), "expected a dictionary"),
    "a list": (lambda: [torch.zeros(2)], "expected a dictionary"),
    "numbers": (lambda: {"input_proj.weight": 3}, "expected names with tensors"),
    "nested": (lambda: {"state_dict": {"input_proj.weight": torch.zeros(2)}}, "names with tensors"),
    "numbered": (lambda: {0: torch.zeros(2)}, "expected names with tensors"),
    "sparse": (lambda: {"input_proj.weight": torch.eye(3).to_sparse()}, "must be dense"),
    "meta": (lambda: {"input_proj.weight": torch.zeros(2, device="meta")}, "must be dense"),
    "expanded": (
        lambda: {"input_proj.weight": torch.zeros(1).expand(10**12)}, "claims more bytes"
    ),
    "shared many times": (
        lambda: dict.fromkeys((f"t{n}" for n in range(900)), torch.zeros(20_000)),
        "claims more bytes",
    ),
    "a module": (lambda: torch.nn.Linear(1, 1), "not tensors alone"),
    "bytes without end": (lambda: {"x": bytearray(4)}, "expected names with tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_what_a_torch_file_may_hold(case, tmp_path):
    value, says = VALUES[case]
    path = tmp_path / "bad.bin"
    path.write_bytes(crafted(value()))
    refused(path, says)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("packed", [False, True])
def test_no_pickle_runs(packed, protocol, good_bin, tmp_path):
    trap = Trap(tmp_path / "owned")
    content = pickle.dumps({"input_proj.weight": trap}, protocol)
    path = tmp_path / "bad.bin"
    if packed:
        archive(path, content, good_bin)
    else:
        path.write_bytes(content)
    refused(path, "cannot be read")
    assert not trap.target.exists()


TABLES = {
    "nothing": b"",
    "stop alone": b".",
    "no text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bad text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "a memo that is not there": b"\x80\x02h\x05.",
    "a stack that is empty": b"\x80\x020.",
    "a persistent id": b"\x80\x02K\x01Q.",
    "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "a long number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a bytearray of a terabyte": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06"
    + struct.pack("<Q", 10**12)[:6] + b"\x85R.",
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_crafted_tables_of_contents(case, good_bin, tmp_path):
    refused(archive(tmp_path / "bad.bin", TABLES[case], good_bin), "cannot be read")


def test_a_storage_larger_than_its_record(good_bin, tmp_path):
    """The table claims a hundred million numbers; the record behind it has five."""
    with zipfile.ZipFile(good_bin) as file:
        table = next(n for n in file.namelist() if n.endswith("data.pkl"))
        content = file.read(table)
    claimed = content.replace(b"K\x05t", b"J" + struct.pack("<i", 10**8) + b"t", 1)
    assert claimed != content
    refused(archive(tmp_path / "bad.bin", claimed, good_bin), "cannot be read")


def test_a_compressed_archive(good_bin, tmp_path):
    """A few kilobytes that unpack to a gigabyte."""
    path = tmp_path / "bad.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(2**27))
    assert path.stat().st_size < 2**20
    refused(path, "cannot be read")


HEADERS = {
    "longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "longer than memory": struct.pack("<Q", 2**62) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"oops",
    "deep": struct.pack("<Q", 40_000) + b"[" * 20_000 + b"]" * 20_000,
    "a tensor of exabytes": (
        lambda h: struct.pack("<Q", len(h)) + h
    )(b'{"input_proj.weight":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}'),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_safetensors_headers(case, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(HEADERS[case])
    refused(path, "cannot be read")


@pytest.mark.parametrize("name", ["folder.safetensors", "folder.bin"])
def test_a_folder_is_no_file(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.bin"])
def test_a_pipe_is_no_file(name, tmp_path):
    import os

    os.mkfifo(tmp_path / name)
    with in_time(), pytest.raises(FileNotFoundError, match=name):
        load_checkpoint(tmp_path / name)
