"""The example workflows: complete, twinned in API format, and running as shipped."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from comfy_copy import ROOT
from demo_files import demo_folder
from PIL import Image

from dpt_core.correction import PRESETS, Correction
from dpt_core.demo.model import FOLDER

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
GRAPHS = [*WORKFLOWS, ROOT / "docs" / "sdxl.json"]
SETTINGS = [setting.name for setting in fields(Correction)]
FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "ControlNetLoader": "controlnet",
    "DPT_LoadAdapter": "dpt",
}
"""Where the front end says that a missing file belongs."""
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def load(path) -> dict:
    return json.loads(path.read_text())


def test_there_are_workflows():
    assert WORKFLOWS


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_complete(path):
    workflow = load(path)
    assert workflow["version"] == 0.4
    width, height = Image.open(path.with_suffix(".jpg")).size
    assert width >= 400 and height >= 300
    for node in workflow["nodes"]:
        assert node["properties"]["ver"]
        ours = node["type"].startswith("DPT_")
        assert node["properties"]["cnr_id"] == ("dpt-t2i" if ours else "comfy-core")
        if node["type"] in FOLDERS and node["widgets_values"] != ["my-sdxl-adapter.safetensors"]:
            (model,) = node["properties"]["models"]
            assert model["name"] == node["widgets_values"][0]
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith(f"/resolve/main/{model['name']}")
            assert model["directory"] == FOLDERS[node["type"]]
    ids = {node["id"] for node in workflow["nodes"]}
    assert max(ids) == workflow["last_node_id"]
    assert all({source, target} <= ids for _, source, _, target, _, _ in workflow["links"])


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_widgets_show_what_runs(path):
    """The settings beside a preset are that preset's, though only the preset counts."""
    for node in load(path)["nodes"]:
        if node["type"] in ("DPT_KSampler", "DPT_SelfCorrection"):
            preset, *settings = node["widgets_values"][-1 - len(SETTINGS) :]
            assert preset == next(iter(PRESETS)), "the first is the one we recommend"
            assert settings == [getattr(PRESETS[preset], name) for name in SETTINGS]


def test_no_withdrawn_address():
    """Stability AI took its Stable Diffusion 2 repositories down in November 2025."""
    pages = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in (".json", ".md", ".py") and ".venv" not in path.parts
    ]
    withdrawn = "stabilityai/" + "stable-diffusion-2"
    assert [path for path in pages if withdrawn in path.read_text(encoding="utf-8")] == []


def api_format(workflow: dict, server) -> dict:
    """What the front end would queue for a workflow."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        schema = server.get(f"object_info/{node['type']}")[node["type"]]["input"]
        values, inputs = iter(node["widgets_values"]), {}
        linked = {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"]}
        for name, spec in {**schema["required"], **schema.get("optional", {})}.items():
            options = spec[1] if len(spec) > 1 else {}
            if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not options.get("forceInput"):
                inputs[name] = next(values)
                if options.get("control_after_generate") or options.get("image_upload"):
                    next(values)
        assert not list(values), f"{node['type']} has widget values left over"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs | linked}
    return prompt


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_twin(path, server):
    twin = load(ROOT / "api_workflows" / path.name)
    for node in twin.values():
        assert node.pop("_meta")["title"]
    assert twin == api_format(load(path), server)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Where the demo model's weights are: the pack, or a folder of random ones."""
    return demo_folder(tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_runs(path, server, demo):
    """As shipped, but for size, steps and random weights."""
    prompt = api_format(load(path), server)
    for node in prompt.values():
        if node["class_type"] == "DPT_DemoModel" and demo != FOLDER:
            node |= {"class_type": "Tiny_Demo", "inputs": {"folder": str(demo)}}
        if node["inputs"].get("ckpt_name") == "sd_xl_base_1.0.safetensors":
            node |= {"class_type": "Tiny_SDXL", "inputs": {}}
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 128, "height": 128, "batch_size": 2}
        if node["class_type"] == "ImageScale":
            node["inputs"]["width"] = 128
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
        if node["class_type"] == "DPT_TrainingData":
            node["inputs"]["folder"] = "demo scenes (200)"
        if "examples" in node["inputs"]:
            node["inputs"]["examples"] = 4
    outcome = server.run(prompt)
    assert outcome.error is None, outcome.error
    for number, node in prompt.items():
        if node["class_type"] in ("SaveImage", "PreviewImage"):
            pictures = outcome.outputs[number]["images"]
            assert pictures
            for item in pictures:
                assert Image.open(server.output(item)).getextrema()
        if node["class_type"] == "PreviewAny":
            assert outcome.outputs[number]["text"]
