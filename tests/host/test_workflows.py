"""The example workflows: complete, twinned in API format, and running as shipped."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
from comfy_copy import ROOT
from demo_files import demo_folder, shorten_training
from dpt_pack.nodes.correction_inputs import PLAIN
from PIL import Image

from dpt_core.correction import CUSTOM, PRESETS, Correction
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
INSIDE, OUTSIDE = -10, -20
"""What a subgraph's links call its inputs and its outputs."""
TITLE = 30
"""Pixels of a node above its position."""
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def load(path) -> dict:
    return json.loads(path.read_text())


def test_there_are_workflows():
    assert WORKFLOWS


def subgraphs(workflow: dict) -> dict[str, dict]:
    """A workflow's subgraphs by id."""
    return {each["id"]: each for each in workflow.get("definitions", {}).get("subgraphs", ())}


def all_nodes(workflow: dict) -> list[dict]:
    """Nodes of a workflow and of its subgraphs, without the subgraphs' own instances."""
    inside = subgraphs(workflow)
    nodes = [node for part in (workflow, *inside.values()) for node in part["nodes"]]
    return [node for node in nodes if node["type"] not in inside]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_complete(path):
    workflow = load(path)
    assert workflow["version"] == 0.4
    width, height = Image.open(path.with_suffix(".jpg")).size
    assert width >= 400 and height >= 300
    assert len({node["id"] for node in all_nodes(workflow)}) == len(all_nodes(workflow)), (
        "the front end gives nodes of a subgraph other ids where they are taken"
    )
    for node in all_nodes(workflow):
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


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_readable_when_opened(path):
    """Few nodes, under 1500 wide, nothing over anything else, a titled note first."""
    nodes = load(path)["nodes"]
    assert len(nodes) <= 15
    first, *_ = nodes
    assert first["type"] == "MarkdownNote" and first["title"] == "Start here"
    assert first["pos"] == [0, 0]
    boxes = [
        (x, y - TITLE, x + width, y + height)
        for (x, y), (width, height) in ((node["pos"], node["size"]) for node in nodes)
    ]
    right, bottom = (max(box[edge] for box in boxes) for edge in (2, 3))
    assert right <= 1500 and bottom <= 830
    for index, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart = right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
            assert apart, (nodes[index]["type"], other)


def test_names_promise_what_is_needed():
    for path in WORKFLOWS:
        demo = any(node["type"] == "DPT_DemoModel" for node in all_nodes(load(path)))
        assert path.stem.endswith(" - no download") == demo


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_widgets_show_what_runs(path):
    """The settings beside a preset are that preset's, though only the preset counts."""
    for node in all_nodes(load(path)):
        if node["type"] in ("DPT_KSampler", "DPT_SelfCorrection", "DPT_SearchKSampler"):
            values = node["widgets_values"]
            place = next(n for n, value in enumerate(values) if value in (*PRESETS, PLAIN, CUSTOM))
            preset, *settings = values[place : place + 1 + len(SETTINGS)]
            recommended = next(iter(PRESETS))
            assert preset in (recommended, PLAIN, CUSTOM)
            assert (preset == PLAIN) == (node.get("title") == "Plain")
            told = dict(zip(SETTINGS, settings, strict=True))
            wanted = {name: getattr(PRESETS[recommended], name) for name in SETTINGS}
            if preset == CUSTOM:  # a strip of strengths
                assert told.keys() == wanted.keys() and node["title"].startswith("Strength")
                del told["strength"], wanted["strength"]
            assert told == wanted


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
    """What the front end would queue for a workflow; nodes of a subgraph 5 are called `5:3`."""
    inside, prompt = subgraphs(workflow), {}

    def add(nodes: list[dict], sources: dict, before: str) -> None:
        for node in nodes:
            name = f"{before}{node['id']}"
            wired = {each["name"]: sources[each["link"]] for each in node["inputs"] if each["link"]}
            if node["type"] in inside:
                graph = inside[node["type"]]
                typed = [each["name"] for each in node["inputs"] if "widget" in each]
                given = wired | dict(zip(typed, node["widgets_values"], strict=True))
                add(graph["nodes"], inner_sources(graph, given, f"{name}:"), f"{name}:")
            elif node["type"] != "MarkdownNote":
                inputs = typed_inputs(node, server) | wired
                prompt[name] = {"class_type": node["type"], "inputs": inputs}

    sources = {}
    for link, node, slot, *_ in workflow["links"]:
        name = str(node)
        if graph := inside.get(next(each["type"] for each in workflow["nodes"]
                                    if each["id"] == node)):  # fmt: skip
            (end,) = (each for each in graph["links"]
                      if each["target_id"] == OUTSIDE and each["target_slot"] == slot)  # fmt: skip
            name, slot = f"{node}:{end['origin_id']}", end["origin_slot"]
        sources[link] = [name, slot]
    add(workflow["nodes"], sources, "")
    return prompt


def inner_sources(graph: dict, given: dict, before: str) -> dict:
    """Where the links of a subgraph come from: its own nodes, or what is given to it."""
    names = [each["name"] for each in graph["inputs"]]
    return {
        link["id"]: given[names[link["origin_slot"]]]
        if link["origin_id"] == INSIDE
        else [f"{before}{link['origin_id']}", link["origin_slot"]]
        for link in graph["links"]
    }


def typed_inputs(node: dict, server) -> dict:
    """What is typed into a node's widgets."""
    schema = server.get(f"object_info/{node['type']}")[node["type"]]["input"]
    values, inputs = iter(node["widgets_values"]), {}
    for name, spec in {**schema["required"], **schema.get("optional", {})}.items():
        options = spec[1] if len(spec) > 1 else {}
        if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not options.get("forceInput"):
            inputs[name] = next(values)
            if options.get("control_after_generate") or options.get("image_upload"):
                next(values)
    assert not list(values), f"{node['type']} has widget values left over"
    return inputs


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_twin(path, server):
    twin = load(ROOT / "api_workflows" / path.name)
    for node in twin.values():
        assert node.pop("_meta")["title"]
    assert twin == api_format(load(path), server)


BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprint(path, server):
    """The host offers it among its subgraphs; it runs as soon as its sockets are wired."""
    if not server.has("global_subgraphs"):
        pytest.skip("this ComfyUI serves no blueprints")
    served = server.get("global_subgraphs").values()
    (ours,) = (each for each in served if each["name"] == path.stem)
    assert ours["info"]["node_pack"] == "custom_nodes.dpt-t2i"
    workflow = load(path)
    (instance,) = workflow["nodes"]
    (graph,) = subgraphs(workflow).values()
    outside = {"model": ["m", 0], "clip": ["m", 1], "vae": ["m", 2],
               "adapter": ["adapter", 0], "latent_image": ["latent", 0]}  # fmt: skip
    typed = [each["name"] for each in instance["inputs"] if "widget" in each]
    given = outside | dict(zip(typed, instance["widgets_values"], strict=True))
    prompt, sources = {}, inner_sources(graph, given, "")
    for node in graph["nodes"]:
        wired = {each["name"]: sources[each["link"]] for each in node["inputs"] if each["link"]}
        inputs = typed_inputs(node, server) | wired
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    prompt |= {
        "m": {"class_type": "Tiny_Model", "inputs": {"family": "sd15"}},
        "adapter": {"class_type": "DPT_LoadAdapter",
                    "inputs": {"adapter_name": "tiny.safetensors"}},
        "latent": {"class_type": "EmptyLatentImage",
                   "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    }  # fmt: skip
    (decoded,) = (key for key, node in prompt.items() if node["class_type"] == "VAEDecode")
    prompt["show"] = {"class_type": "PreviewImage", "inputs": {"images": [decoded, 0]}}
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
    outcome = server.run(prompt)
    assert outcome.error is None, outcome.error
    assert outcome.outputs["show"]["images"]


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
    shorten_training(prompt)
    outcome = server.run(prompt)
    assert outcome.error is None, outcome.error
    if any(node["inputs"].get("preset") == PLAIN for node in prompt.values()):
        assert any(re.search(r"done: .*\(plain -?\d\.\d\d\)", text) for text in outcome.texts)
    for number, node in prompt.items():
        if node["class_type"] in ("SaveImage", "PreviewImage", "DPT_Compare"):
            pictures = outcome.outputs[number]["images"]
            assert pictures
            for item in pictures:
                assert Image.open(server.output(item)).getextrema()
        if node["class_type"] == "PreviewAny":
            assert outcome.outputs[number]["text"]
