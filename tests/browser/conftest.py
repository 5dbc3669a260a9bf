"""A real ComfyUI with its real front end, open in a headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from comfy_copy import ROOT, find_comfyui
from comfy_server import Server

sync_api = pytest.importorskip("playwright.sync_api")

FRONT_END = (1, 47)  # of ComfyUI 0.30; earlier ones name their buttons otherwise
LIMIT = 120_000  # milliseconds: a busy machine is no failure
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTS_OWN = re.compile(r"user\.css|/userdata|graph accessed before initialization|\.jpg|/en\.md")
"""Errors the front end logs without us. It looks for a help page in its language first; thumbnails
are the business of test_workflows.py."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ComfyUI that lists every model our workflows name; the files are empty."""
    server = Server(tmp_path_factory.mktemp("comfyui"))
    for path in (ROOT / "workflows").glob("*.json"):
        workflow = json.loads(path.read_text())
        inside = workflow.get("definitions", {}).get("subgraphs", ())
        for node in [node for part in (workflow, *inside) for node in part["nodes"]]:
            for model in node["properties"].get("models", ()):
                (server.base / "models" / model["directory"] / model["name"]).touch()
            if node["type"] == "DPT_LoadAdapter":
                (server.base / "models" / "dpt" / node["widgets_values"][0]).touch()
    shutil.copy(find_comfyui() / "input" / "example.png", server.base / "input")
    server.start(previews="none")  # they would stay on the samplers and cover other nodes
    quiet = ("Comfy.Workflow.Persist", "Comfy.Graph.CanvasInfo")
    server.post("settings", {"Comfy.TutorialCompleted": True, **dict.fromkeys(quiet, False)})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def context(server: Server) -> Iterator[sync_api.BrowserContext]:
    """A browser that reaches nothing but the server."""
    if not (chromium := next(filter(None, map(shutil.which, BROWSERS)), None)):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium on this machine: apt-get install chromium")
    found = version("comfyui_frontend_package")
    if tuple(map(int, found.split(".")[:2])) < FRONT_END:
        pytest.skip(f"front end {found}: these tests know the buttons of {FRONT_END} and newer")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": 2000, "height": 1125},
            locale="en-US",
            base_url=f"http://{server.address}",
        )
        context.set_default_timeout(LIMIT)
        context.route(lambda url: server.address not in url, lambda route: route.abort())
        yield context
        browser.close()


@pytest.fixture
def page(server: Server, context: sync_api.BrowserContext) -> Iterator[sync_api.Page]:
    """The front end, ready for use; in the end it must not have logged an error of ours."""
    page, errors = context.new_page(), []

    def listen(message: sync_api.ConsoleMessage) -> None:
        address = message.location["url"]
        if message.type == "error" and server.address in address:
            errors.append(f"{message.text} ({address})")

    page.on("console", listen)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    page.wait_for_function("window.app?.graph?._nodes.length")
    page.wait_for_load_state("networkidle")
    # A veil that comes back while it fades is lost by the front end, and lies over it for ever.
    sync_api.expect(page.locator(".p-blockui-mask")).to_have_count(0, timeout=LIMIT)
    yield page
    page.close()
    assert [error for error in errors if not HOSTS_OWN.search(error)] == []


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of the canvas are kept; git ignores it."""
    folder = ROOT / "tests" / "output" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n")
    return folder
