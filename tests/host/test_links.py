"""Numbers that come over a wire: the host does not check them, so we do, by name.

The table is made of the nodes' own schemas: every number of ours, below its range, above it, and
not a number. What is typed the host refuses itself; a wired value the node sees first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
from comfy_server import Server
from dpt_pack.dpt_core.correction import Correction
from dpt_pack.dpt_core.search import Search
from dpt_pack.dpt_core.training.recipe import RunSettings
from dpt_pack.dpt_core.training.tuning_settings import TuneSettings

from benchmarks.soak import Prompt, any_sampler, corrected, explained, looked_at, node, search

DEMO = {"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2]}
HOSTS = {"seed", "cfg", "denoise"}
"""Inputs that our samplers hand on to the host's."""
LIMITED = {each.name for kind in (Correction, Search, RunSettings, TuneSettings)
           for each in fields(kind)}  # fmt: skip
"""Where too much is refused; elsewhere it costs time only, and the widget's end is a suggestion."""
BARS = {"minimum", "threshold"}
"""Scores below or above which nothing is: harmless, but they must be numbers."""
SECONDS = 120
"""What hangs takes longer; a refusal takes a moment."""


def showing(name: str, place: int = 0) -> dict:
    return node("PreviewAny", source=[name, place])


def training(kind: str, **inputs) -> Prompt:
    data = node("DPT_TrainingData", folder="demo scenes (200)", negatives="auto", size=128)
    train = node(kind, **DEMO, run_name="links", **inputs)
    empty = node("EmptyLatentImage", width=128, height=128, batch_size=1)
    return {"demo": node("DPT_DemoModel"), "data": data, "empty": empty, "train": train,
            "shown": showing("train", 2)}  # fmt: skip


CUSTOM = {"preset": "custom", "mode": "exact"}


def corrects_itself() -> Prompt:
    prompt = any_sampler(1)
    prompt["correction"]["inputs"] |= CUSTOM
    return prompt


def searches() -> Prompt:
    prompt = search(1)
    prompt["sampler"]["inputs"] |= CUSTOM
    return prompt


PROMPTS: dict[str, Callable[[], Prompt]] = {
    "DPT_KSampler": lambda: corrected(1, **CUSTOM),
    "DPT_SelfCorrection": corrects_itself,
    "DPT_ApplyLoRA": corrects_itself,
    "DPT_SearchKSampler": searches,
    "DPT_AlignmentScore": lambda: looked_at(1),
    "DPT_SelectBest": lambda: looked_at(1),
    "DPT_GroundPhrase": lambda: looked_at(1),
    "DPT_Compare": lambda: looked_at(1),
    "DPT_Explain": lambda: explained(1),
    "DPT_ScenePrompts": lambda: {"prompts": node("DPT_ScenePrompts"), "shown": showing("prompts")},
    "DPT_TrainingData": lambda: training("DPT_TrainAdapter", data=["data", 0]),
    "DPT_TrainAdapter": lambda: training("DPT_TrainAdapter", data=["data", 0]),
    "DPT_TuneLoRA": lambda: training(
        "DPT_TuneLoRA", adapter=["demo", 3], prompts="a\nb", latent_image=["empty", 0]
    ),
}
"""A prompt that is good but for what is wired, by the node that is looked at."""


def inputs_of(server: Server, kind: str) -> tuple[dict, dict]:
    """What a node must and may be given."""
    schema = server.get(f"object_info/{kind}")[kind]["input"]
    return schema.get("required", {}), schema.get("optional", {})


def completed(server: Server, prompt: Prompt) -> Prompt:
    """A prompt with the defaults of what its nodes require."""
    for each in prompt.values():
        required, _ = inputs_of(server, each["class_type"])
        defaults = {name: told[1]["default"] for name, told in required.items()
                    if len(told) > 1 and "default" in told[1]}  # fmt: skip
        each["inputs"] = defaults | each["inputs"]
    return prompt


def looked_up(server: Server, kind: str) -> tuple[Prompt, dict, str]:
    """A good prompt with a node, the schema of the node's numbers, and its id."""
    prompt = completed(server, PROMPTS[kind]())
    (key,) = (key for key, each in prompt.items() if each["class_type"] == kind)
    required, optional = inputs_of(server, kind)
    numbers = {
        name: told
        for name, told in {**required, **optional}.items()
        if told[0] in ("INT", "FLOAT")
        and "min" in told[1]
        and name not in HOSTS
        and not (name == "steps" and "Sampler" in kind)
    }
    return prompt, numbers, key


def wrong(name: str, of: str, told: dict) -> Iterator[float]:
    """Values that a number may not have; infinity ComfyUI's own node for numbers refuses."""
    if name not in BARS:
        yield told["min"] - 1
    if name in LIMITED - BARS:
        yield told["max"] + 1
    if of == "FLOAT":
        yield math.nan


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_wired_number_is_refused_by_name(kind, server):
    prompt, numbers, key = looked_up(server, kind)
    for name, (of, told, *_) in numbers.items():
        for value in wrong(name, of, told):
            source = "PrimitiveFloat" if of == "FLOAT" else "PrimitiveInt"
            wired = {**prompt, "wire": node(source, value=value)}
            inputs = {**prompt[key]["inputs"], name: ["wire", 0]}
            wired[key] = node(kind, **inputs)
            outcome = server.run(wired, limit=SECONDS)
            case = f"{kind}, {name} = {value}"
            assert outcome.error, f"{case}: nothing was said"
            said = outcome.error["exception_message"]
            assert name in said and "must be" in said and "got" in said, f"{case}: {said}"
