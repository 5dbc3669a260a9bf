"""Graphs that are wired wrongly: what the dialog has to say, case by case, over the HTTP API.

A good prompt follows in the same host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_links import PROMPTS, SECONDS, completed, training

from benchmarks.soak import (
    Prompt,
    any_sampler,
    looked_at,
    node,
    plain,
)  # fmt: skip

FOREIGN = (
    "DPT_KSampler", "DPT_SelfCorrection", "DPT_SearchKSampler", "DPT_AlignmentScore",
    "DPT_GroundPhrase", "DPT_Explain",
)  # fmt: skip
"""Nodes that read a model with an adapter."""


def changed(graph: Prompt, kind: str, **inputs: Any) -> Prompt:
    """A prompt with other inputs of one node."""
    (key,) = (key for key, each in graph.items() if each["class_type"] == kind)
    return graph | {key: node(kind, **graph[key]["inputs"] | inputs)}


def with_foreign_adapter(kind: str) -> Prompt:
    """Another model's adapter on the demo model."""
    other = {"other": node("DPT_LoadAdapter", adapter_name="other_family.safetensors")}
    return changed(PROMPTS[kind]() | other, kind, adapter=["other", 0])


def with_lora_elsewhere() -> Prompt:
    other = {"other": node("Tiny_Model", family="sd15")}
    return changed(any_sampler(1) | other, "DPT_ApplyLoRA", model=["other", 0])


def saved(filename: str) -> Prompt:
    return {"demo": node("DPT_DemoModel"),
            "save": node("DPT_SaveAdapter", adapter=["demo", 3], filename=filename)}  # fmt: skip


def data_of(**inputs: Any) -> Prompt:
    data = {"folder": "demo scenes (200)", "negatives": "auto", "size": 128}
    blank = node("EmptyImage", width=64, height=64, batch_size=2, color=0)
    return {"blank": blank, "text": node("PrimitiveString", value="a red circle"),
            "data": node("DPT_TrainingData", **data | inputs),
            "shown": node("PreviewImage", images=["data", 1])}  # fmt: skip


def run_named(name: str) -> Callable[[], Prompt]:
    return lambda: changed(
        training("DPT_TrainAdapter", data=["data", 0]), "DPT_TrainAdapter", run_name=name
    )


def tuned(prompts: str) -> Callable[[], Prompt]:
    return lambda: training(
        "DPT_TuneLoRA", adapter=["demo", 3], prompts=prompts, latent_image=["empty", 0]
    )


NAMES = {"none": "", "spaces": "  ", "up": "../x", "far up": "../../../x", "absolute": "/x",
         "nul": "a\0b", "long": "x" * 400}  # fmt: skip

CASES: dict[str, tuple[Callable[[], Prompt], str]] = {
    **{
        f"{kind} with another model's adapter": (
            lambda kind=kind: with_foreign_adapter(kind), "expects 40 channels at tap up1",
        )
        for kind in FOREIGN
    },
    "the LoRA on another model": (with_lora_elsewhere, "trained on another model family"),
    **{f"run name: {case}": (run_named(name), "run_name must") for case, name in NAMES.items()},
    **{
        f"file name: {case}": (lambda name=name: saved(name), "filename must")
        for case, name in NAMES.items()
    },
    "captions without pictures": (
        lambda: data_of(captions=["text", 0]), "wire their pictures too",
    ),
    "a caption short": (
        lambda: data_of(images=["blank", 0], captions=["text", 0]), "caption",
    ),
    "parts without pictures": (
        lambda: data_of(parts=["text", 0]), "wire the pictures that were drawn",
    ),
    "parts that are none": (
        lambda: data_of(images=["blank", 0], parts=["text", 0]), "parts as JSON",
    ),
    "pictures without captions": (lambda: data_of(images=["blank", 0]), "caption"),
    "nothing to draw": (tuned(""), "at least 2 different prompts"),
    "one prompt": (tuned("a red circle"), "at least 2 different prompts"),
    "the same prompt twice": (tuned("a red circle\na red circle"), "at least 2 different prompts"),
    "a mean score to choose by": (
        lambda: changed(looked_at(1), "DPT_SelectBest", scores=["score", 0]),
        "expected a score per picture",
    ),
}  # fmt: skip
"""What is wrong → the prompt, and words that the message has to hold."""


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_graph_is_told(case, server):
    make, words = CASES[case]
    prompt = completed(server, make())
    outcome = server.run(prompt, limit=SECONDS)
    assert outcome.error, "nothing was said"
    kind, said = outcome.error["exception_type"], outcome.error["exception_message"]
    assert kind.rsplit(".", 1)[-1] in ("ValueError", "DataError", "RunError"), f"{kind}: {said}"
    assert words in said, said


def test_a_good_prompt_after_them(server):
    assert server.run(plain(2)).error is None
