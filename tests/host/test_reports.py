"""A report that cannot be drawn, as without matplotlib: what it reports on is not lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from dpt_pack.nodes import ground_phrase, ksampler, search_ksampler
from runs import latents
from tiny_models import tiny_adapter, tiny_model, tiny_text

SAMPLING = {
    "seed": 7, "steps": 2, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal",
    "denoise": 1.0, "preset": "balanced",
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "node", "drawing"),
    [(ksampler, "KSampler", "score_curves"), (search_ksampler, "SearchKSampler", "search_curves")],
)
def test_the_latent_comes_without_its_curves(module, node, drawing, monkeypatch, caplog):
    def broken(*given, **more):
        raise ImportError("No module named 'matplotlib'")

    run = {
        **SAMPLING, "model": tiny_model("sd15"), "adapter": tiny_adapter(),
        "positive": tiny_text(1), "negative": tiny_text(2), "latent_image": latents(),
    }  # fmt: skip
    if node == "SearchKSampler":
        run["candidates"] = 2
    expected = _result(module, node, run)
    monkeypatch.setattr(module, drawing, broken)
    found = _result(module, node, run)
    assert torch.equal(found[0]["samples"], expected[0]["samples"])
    assert found[-1].shape == (1, 64, 64, 3)
    assert "No module named 'matplotlib'" in caplog.text


def _result(module, node: str, run: dict) -> tuple:
    """All outputs of a node."""
    kind = getattr(module, node)
    kind = type(node, (kind,), {"hidden": SimpleNamespace(unique_id=None)})
    return kind.execute(**run).result


def test_boxes_come_without_their_picture(monkeypatch):
    def broken(*given, **more):
        raise OSError("no font")

    monkeypatch.setattr(ground_phrase, "annotate", broken)
    image, boxes = torch.rand(8, 8, 3), ground_phrase.Grounding(torch.ones(1, 4), torch.ones(1))
    assert ground_phrase.marked(image, boxes, "a cube").shape == image.shape
