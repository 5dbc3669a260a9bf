"""DPT_Explain on the demo model, and DPT_ScenePrompts before it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dpt_pack.dpt_core.explain import explain, questions
from dpt_pack.dpt_core.phrases import take_apart
from dpt_pack.dpt_core.shapes.caption import COLOURS, SHAPES
from dpt_pack.dpt_core.shapes.scene import Thing, render
from dpt_pack.dpt_core.verdicts import by_parts
from dpt_pack.nodes.explain import Explain
from dpt_pack.nodes.host.demo import load_demo
from dpt_pack.nodes.host.explain import read_evidence
from dpt_pack.nodes.scene_prompts import ScenePrompts
from test_server import node

Node = type("Node", (Explain,), {"hidden": SimpleNamespace(unique_id="1")})

PROMPT = "a red circle left of a blue square"
RIGHT = (Thing("circle", "red", "large", 30, 40), Thing("square", "blue", "large", 95, 85))
MISSING = RIGHT[1:]
TURNED = (Thing("circle", "red", "large", 95, 40), Thing("square", "blue", "large", 30, 85))


@pytest.fixture(scope="module")
def demo():
    with torch.inference_mode():
        return load_demo()


@pytest.fixture(scope="module")
def outcome(demo):
    scenes = [render(scene) for scene in (RIGHT, MISSING, TURNED)]
    images = torch.from_numpy(np.stack(scenes)).float() / 255
    with torch.inference_mode():
        return Node.execute(
            demo.model, demo.adapter, demo.vae, images, demo.clip, PROMPT, 0, "dark"
        ).result


def test_the_failing_part_is_told(outcome):
    annotated, holds, failed, mask, text = outcome
    assert holds[0] == 1 and max(holds[1:]) < 1
    right, missing, turned = json.loads(text)
    assert right["held"] and not missing["held"] and not turned["held"]
    wrong = {part["kind"] for part in missing["parts"] if part["held"] is False}
    assert {"thing", "relation"} <= wrong
    assert {p["kind"] for p in turned["parts"] if p["held"] is False} == {"relation"}
    assert "a red circle" in failed and PROMPT in failed
    assert [verdict.held for verdict in by_parts(text)] == [True, False, False]
    assert mask.shape == (3, 128, 128) and mask.dtype == torch.float32
    assert not mask[0].any() and mask[1].any() and mask[1, 85, 95] == 0
    assert annotated.shape[0] == 3 and min(annotated.shape[1:3]) >= 512


def test_pictures_are_read_alone_or_together(demo):
    images = torch.from_numpy(np.stack([render(RIGHT), render(TURNED)])).float() / 255
    asked = questions(take_apart(PROMPT))
    asked = asked._replace(phrases=asked.phrases[:1], others=())

    def read(some):
        return read_evidence(demo.model, demo.adapter, demo.vae, some, demo.clip, asked, 3)

    both, alone = read(images), read(images[1:])
    for phrase, found in alone[0].boxes.items():
        for one, other in zip(found, both[1].boxes[phrase], strict=True):
            torch.testing.assert_close(one.scores, other.scores, atol=2e-4, rtol=0)
    assert len(alone[0].scores) == 2
    for sentence, found in alone[0].scores.items():
        assert found == pytest.approx(both[1].scores[sentence], abs=1e-3)


def test_an_adapter_that_only_scores_tells_no_things(demo):
    images = torch.from_numpy(render(RIGHT)[None].copy()).float() / 255
    config = replace(demo.adapter.config, grounding_queries=0)
    blind = SimpleNamespace(
        config=config, patcher=demo.adapter.patcher, name="blind", checkpoint=None
    )
    parts = take_apart(PROMPT)
    asked = questions(parts)._replace(sentences=())
    (evidence,) = read_evidence(demo.model, blind, demo.vae, images, demo.clip, asked, 2**64 - 1)
    explanation = explain(parts, evidence)
    assert evidence.boxes == {} and explanation.held is None and explanation.share == 1


def test_an_empty_prompt_is_refused_while_wiring():
    assert "prompt is empty" in Explain.validate_inputs(prompt=" ")
    assert Explain.validate_inputs(prompt=PROMPT) is True and Explain.validate_inputs() is True


def test_scene_prompts_run_the_next_node_for_each(server):
    words = {"things": ", ".join(SHAPES), "attributes": ", ".join(COLOURS)}
    prompt = {
        "1": node("DPT_ScenePrompts", **words, relations="above", most=3, count=3, seed=1),
        "2": node("PreviewAny", source=["1", 0]),
        "3": node("PreviewAny", source=["1", 1]),
    }
    outcome = server.run(prompt)
    assert outcome.error is None, outcome.error
    prompts, parts, seeds = ScenePrompts.execute(
        words["things"], words["attributes"], "above", 3, 3, 1
    ).result
    assert len(prompts) == len(parts) == len(set(seeds)) == 3 and " above " in prompts[1]
    for text, said in zip(prompts, map(json.loads, parts), strict=True):
        assert text[slice(*said["phrases"][0]["span"])] == said["phrases"][0]["text"]
