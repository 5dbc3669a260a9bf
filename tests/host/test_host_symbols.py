"""What we rely on of ComfyUI is there, and what is not takes no other node along."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys

import comfy.samplers
import pytest
from comfy_copy import ROOT
from dpt_pack.nodes import NODES, DPTExtension
from host_symbols import GUARDS, PAGE, guards, host_symbols, renewed
from tiny_transformers import OLD

import nodes as host_nodes

SYMBOLS = host_symbols()


def look_up(symbol: str) -> object:
    """A symbol of the running host, by its dotted name.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    parts = symbol.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(symbol)


NEWER = {
    "comfy.model_management.in_training",
    "comfy.ops.uncast_bias_weight",
    "comfy.weight_adapter.bypass.BypassForwardHook",
}
"""Not in 0.3.64, where we do without."""


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_there(symbol):
    try:
        look_up(symbol)
    except (ImportError, AttributeError):
        if not OLD or symbol not in NEWER:
            raise
        pytest.skip("this ComfyUI has none, and needs none")


def test_absent_symbols_are_noticed():
    """What test_there relies on."""
    for symbol in ("comfy.samplers.NoSuchThing", "no_such_module.thing"):
        with pytest.raises((ImportError, AttributeError)):
            look_up(symbol)


def test_the_source_is_read():
    assert "nodes.common_ksampler" in SYMBOLS
    assert "nodes/ksampler.py" in SYMBOLS["comfy.samplers.KSampler.SAMPLERS"]


def test_page():
    """Each symbol with the tests that guard it."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page), "run: python3 tests/host_symbols.py"
    tests = {test for file in sum(SYMBOLS.values(), []) for test in guards(file)}
    assert [test for test in tests if not (ROOT / "tests/host" / test).is_file()] == []
    assert [place for place in GUARDS if not (ROOT / place).exists()] == [], "left over"


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (host_nodes, "common_ksampler", "cannot import name 'common_ksampler'"),
        (comfy.samplers.KSampler, "SAMPLERS", "no attribute 'SAMPLERS'"),
    ],
)
def test_missing_symbol_costs_its_nodes(monkeypatch, caplog, owner, name, said):
    """Gone when the file is imported, or when its schema is made."""
    monkeypatch.delattr(owner, name)
    lost = {"ksampler": "KSampler", "search_ksampler": "SearchKSampler"}
    for file in lost:
        monkeypatch.delitem(sys.modules, f"dpt_pack.nodes.{file}", raising=False)
    with caplog.at_level(logging.ERROR):
        loaded = asyncio.run(DPTExtension().get_node_list())
    assert [node.__name__ for node in loaded] == [
        node for node in NODES.values() if node not in lost.values()
    ]
    assert len(caplog.records) == len(lost)
    for record, node in zip(caplog.records, lost.values(), strict=True):
        assert f"the node {node} is missing" in record.message
        assert said in record.message and "other DPT nodes work" in record.message
