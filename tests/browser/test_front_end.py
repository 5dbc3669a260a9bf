"""Our workflows, nodes, help pages and translations in ComfyUI's own front end."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import fields

import pytest
from comfy_copy import ROOT
from demo_files import demo_folder, shorten_training
from PIL import Image

from dpt_core.correction import PRESETS, Correction
from dpt_core.demo.model import FOLDER

sync_api = pytest.importorskip("playwright.sync_api")
expect, TimeoutError = sync_api.expect, sync_api.TimeoutError
expect.set_options(timeout=120_000)  # a busy machine is no failure

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
DOCS = ROOT / "nodes" / "web" / "docs"
NODES = sorted(page.stem for page in DOCS.glob("*.md"))
SHOWS = ("SaveImage", "PreviewImage", "DPT_Compare")
DROP = """async (canvas, [name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0))
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([bytes], name, { type }))
    const place = { clientX: 800, clientY: 450, bubbles: true, cancelable: true }
    canvas.dispatchEvent(new DragEvent("drop", { dataTransfer, ...place }))
}"""
ADD = """(type) => {
    const node = LiteGraph.createNode(type)
    app.graph.clear()
    app.graph.add(node)
    app.canvas.ds.reset()
    node.pos = [400, 300]
    app.canvas.selectNode(node)
    app.canvas.setDirty(true, true)
    return node.title
}"""
SHOWN = """(types) => app.graph._nodes.filter((node) => types.includes(node.type)).every(
    (node) => node.imgs?.length && node.imgs.every((picture) => picture.naturalWidth))"""
BROKEN = """() => app.graph._nodes.filter(
    (node) => node.has_errors || !(node.subgraph || node.type in LiteGraph.registered_node_types))
    .map((node) => node.type)"""
DONE = """() => fetch("/api/queue").then((answer) => answer.json())
    .then((queue) => !queue.queue_running.length && !queue.queue_pending.length)"""
FRAME = """() => {
    const parts = [...app.graph._nodes.map((node) => node.getBounding()),
                   ...app.graph._groups.map((group) => group._bounding)]
    const edge = (axis) => Math.min(...parts.map((part) => part[axis])) - 10
    const size = (axis) =>
        Math.max(...parts.map((part) => part[axis] + part[axis + 2])) + 10 - edge(axis)
    const scale = Math.min(innerWidth / size(0), innerHeight / size(1))
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [-edge(0), -edge(1)]
    app.canvas.setDirty(true, true)
    return { x: 0, y: 0, width: size(0) * scale, height: size(1) * scale }
}"""
MENUS = ".z-999, .z-999 * { visibility: hidden !important }"

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def drop(page, name: str, kind: str, content: bytes) -> None:
    """Drop a file on the canvas."""
    text = base64.b64encode(content).decode()
    page.locator("#graph-canvas").evaluate(DROP, [name, kind, text])


def save_picture(page, path) -> None:
    """Save the graph, all of it and nothing else, 1000 pixels wide: a thumbnail."""
    page.add_style_tag(content=MENUS)
    frame = page.evaluate(FRAME)
    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot(clip=frame))).convert("RGB")
    picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    picture.save(path, quality=88)


def assert_open(page, path) -> None:
    """The canvas holds a workflow, whole: it would be queued as its API twin says."""
    nodes = json.loads(path.read_text())["nodes"]
    page.wait_for_function(f"app.graph._nodes.length === {len(nodes)}")
    page.wait_for_timeout(1000)  # the front end looks for missing models in the background
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)
    assert page.evaluate(BROKEN) == []
    twin = json.loads((ROOT / "api_workflows" / path.name).read_text())
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == twin


@every_workflow
def test_template(page, path, screenshots):
    page.get_by_test_id("side-toolbar").get_by_role("button", name="Templates").click()
    page.get_by_text("dpt-t2i", exact=True).click()
    page.get_by_test_id(f"template-workflow-{path.stem}").click()
    assert_open(page, path)
    save_picture(page, screenshots / f"{path.stem}.jpg")


@every_workflow
def test_file_on_the_canvas(page, path):
    drop(page, path.name, "application/json", path.read_bytes())
    assert_open(page, path)


def test_absent_model_and_node_are_told(page):
    """What assert_open relies on."""
    workflow = json.loads((ROOT / "workflows" / "DPT in SamplerCustomAdvanced.json").read_text())
    text = json.dumps(workflow).replace("v2-1_512-ema-pruned", "absent")
    drop(page, "absent.json", "application/json", text.replace("DPT_Load", "DPT_Absent").encode())
    expect(page.get_by_test_id("error-overlay")).to_contain_text("2 errors")
    broken = "CheckpointLoaderSimple,DPT_AbsentAdapter"
    page.wait_for_function(f"({BROKEN})().join() === '{broken}'")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Where the demo model's weights are: the pack, or a folder of random ones."""
    return demo_folder(tmp_path_factory.mktemp("demo"))


def stand_in(prompt: dict, demo) -> dict:
    """A prompt that needs no download and no hour: other weights for the demo, blank pictures for
    the rest, two steps of training."""
    shorten_training(prompt)
    kinds = {node["class_type"] for node in prompt.values()}
    if "DPT_DemoModel" not in kinds:
        size = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
        shown = {key: node for key, node in prompt.items() if node["class_type"] in SHOWS}
        for node in shown.values():
            wired = [name for name, value in node["inputs"].items() if isinstance(value, list)]
            for name in wired:
                del node["inputs"][name]
            images = "images_1" if node["class_type"] == "DPT_Compare" else "images"
            node["inputs"] |= {images: ["blank", 0]}
            if "labels" in node["inputs"]:
                node["inputs"]["title"] = ""
        return {**shown, "blank": {"class_type": "EmptyImage", "inputs": size}}
    for node in prompt.values():
        if node["class_type"] == "DPT_DemoModel" and demo != FOLDER:
            node |= {"class_type": "Tiny_Demo", "inputs": {"folder": str(demo)}}
    return prompt


@every_workflow
def test_run_and_result_on_the_canvas(page, path, server, demo, screenshots):
    """Run ends with pictures on the canvas, and one of them brings the workflow back."""

    def queue(route) -> None:
        body = route.request.post_data_json
        route.continue_(post_data=json.dumps(body | {"prompt": stand_in(body["prompt"], demo)}))

    page.route("**/api/prompt", queue)
    drop(page, path.name, "application/json", path.read_bytes())
    assert_open(page, path)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(SHOWN, arg=SHOWS)
    page.wait_for_function(DONE)
    page.wait_for_timeout(500)  # texts are painted after the pictures
    save_picture(page, screenshots / f"{path.stem}, run.jpg")
    folders = (server.base / name for name in ("output", "temp"))  # DPT Compare shows, not saves
    results = [picture for folder in folders for picture in folder.rglob("*.png")]
    result = max(results, key=lambda picture: picture.stat().st_mtime)
    page.evaluate("app.graph.clear()")
    drop(page, result.name, "image/png", result.read_bytes())
    assert_open(page, path)


def appears(element) -> bool:
    try:
        element.wait_for(timeout=10_000)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("name", NODES)
def test_help_page(page, name):
    title, text, *_ = (DOCS / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
    button = page.get_by_test_id("info-button")
    for _ in range(10):  # the front end may still be opening its own graph, which deselects
        assert page.evaluate(ADD, name) == title.removeprefix("# ")
        if appears(button):
            break
    button.click()
    panel = page.get_by_test_id("properties-panel")
    expect(panel.get_by_role("heading", level=1)).to_have_text(title.removeprefix("# "))
    expect(panel).to_contain_text(re.sub("[*`]", "", text))
    for picture in panel.locator("img").all():
        page.wait_for_function(
            "(picture) => picture.naturalWidth > 0", arg=picture.element_handle()
        )


CHOOSE = """(preset) => {
    const node = app.graph._nodes[0]
    const widget = node.widgets.find((widget) => widget.name === "preset")
    widget.value = preset
    widget.callback?.(preset)
    const settings = node.widgets.filter((widget) => widget.name in DPT)
    return [node.size[1], settings.map((widget) => [widget.hidden, widget.value])]
}"""


@pytest.fixture(params=[False, True], ids=["classic", "Nodes 2.0"])
def nodes_2(request, server):
    server.post("settings", {"Comfy.VueNodes.Enabled": request.param})
    yield request.param
    server.post("settings", {"Comfy.VueNodes.Enabled": False})


@pytest.mark.parametrize("name", ["DPT_KSampler", "DPT_SelfCorrection", "DPT_SearchKSampler"])
def test_settings_are_there_under_custom(name, nodes_2, page):
    """A preset hides them; custom shows them, with the numbers of the preset before it."""
    page.evaluate(ADD, name)
    settings = {each.name: getattr(PRESETS["published"], each.name) for each in fields(Correction)}
    page.evaluate("(settings) => { window.DPT = settings }", settings)
    heights = {}
    for preset in ("published", "custom", "fast", "custom"):
        heights[preset], shown = page.evaluate(CHOOSE, preset)
        numbers = PRESETS["fast" if "fast" in heights else "published"]
        assert [value for _, value in shown] == [getattr(numbers, each) for each in settings]
        assert {hidden for hidden, _ in shown} == {preset != "custom"}
        labels = page.get_by_text("every_n_steps", exact=True)
        if nodes_2:
            expect(labels).to_have_count(int(preset == "custom"))
    assert heights["custom"] > heights["fast"] + 100


@pytest.fixture
def chinese(server):
    server.post("settings", {"Comfy.Locale": "zh"})
    yield json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    server.post("settings", {"Comfy.Locale": "en"})


def test_names_in_chinese(chinese, page, screenshots):
    names = [chinese[name]["display_name"] for name in NODES]
    assert [page.evaluate(ADD, name) for name in NODES] == names
    search = page.locator("input:focus")
    for _ in range(10):
        page.mouse.dblclick(1100, 700)  # opens the search for nodes, once the canvas listens
        if appears(search):
            break
    search.fill("DPT")
    for name in names:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.screenshot(path=screenshots / "Chinese.png")
