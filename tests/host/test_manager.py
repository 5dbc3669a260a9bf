"""ComfyUI Manager: it reads our node ids from the source, and installs requirements alone."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_copy import ROOT, find_comfyui
from dpt_pack.nodes import DPTExtension

NODES = {node.define_schema().node_id for node in asyncio.run(DPTExtension().get_node_list())}
SCANNER = Path(os.environ.get("COMFYUI_MANAGER_SCANNER", ""))
DATA = {"custom_nodes", "input", "models", "output", "temp", "user"}
LIMIT = 300

# Stands for pip and uv: notes what would be installed, and installs nothing.
PACKAGES = """
import json, os, sys
from importlib.metadata import distributions

arguments = [a for a in sys.argv[1:] if a != "pip"]
if arguments[0] in ("install", "uninstall", "sync"):
    with open(os.environ["RECORDED"], "a") as file:
        file.write(json.dumps(arguments) + "\\n")
elif arguments[0] in ("list", "freeze"):
    for found in distributions():
        if found.metadata["Name"] not in os.environ["ABSENT"].split():
            print(found.metadata["Name"], found.version)
"""


def schemas(path: Path) -> list[ast.Call]:
    """Schemas of the classes of a file that inherit from `ComfyNode` directly."""
    return [
        call
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Attribute) and base.attr == "ComfyNode" for base in node.bases)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "Schema"
    ]


def test_node_ids_are_literals():
    """What any reader of the source needs: direct inheritance and ids as plain strings."""
    found = [
        ast.unparse(keyword.value)
        for path in sorted((ROOT / "nodes").rglob("*.py"))
        for schema in schemas(path)
        for keyword in schema.keywords
        if keyword.arg == "node_id"
    ]
    assert sorted(found) == sorted(map(repr, NODES))


@pytest.mark.skipif(
    not SCANNER.is_file(),
    reason="COMFYUI_MANAGER_SCANNER names no scanner.py of ComfyUI-Manager; its package has none",
)
def test_scanner_lists_our_nodes(clone, tmp_path):
    """The script that makes the Manager's map from node names to packs."""
    url = "https://github.com/dpt-t2i/dpt-t2i"
    (tmp_path / "urls").write_text(url)
    subprocess.run(
        [
            sys.executable, SCANNER, "--scan-only", "urls", "--temp-dir", clone.parent,
            "--skip-all", "--force-rescan",
        ],
        cwd=tmp_path, check=True, timeout=LIMIT,
    )  # fmt: skip
    names, _ = json.loads((tmp_path / "extension-node-map.json").read_text())[url]
    assert {name for name in names if name.startswith("DPT_")} == NODES


@pytest.mark.skipif(
    importlib.util.find_spec("cm_cli") is None, reason="comfyui-manager is not installed"
)
def test_installs_requirements_alone(clone, tmp_path):
    """From a git address: clones, installs what requirements.txt says, and the host loads it."""
    host, recorded = own_comfyui(tmp_path / "ComfyUI"), tmp_path / "recorded"
    for installer in ("pip", "uv"):
        package = tmp_path / "packages" / installer
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(PACKAGES)
    requirements = (clone / "requirements.txt").read_text().split()
    output = run(
        ["-m", "cm_cli", "install", "--mode", "cache", f"file://localhost{clone}"],
        host,
        ABSENT=" ".join(requirements),
        PYTHONPATH=str(tmp_path / "packages"),
        RECORDED=str(recorded),
        TQDM_DISABLE="1",
    )
    assert "Installation was successful" in output, output
    installed = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert installed == [["install", requirement] for requirement in requirements], output
    assert "install script" not in output
    assert not list((host / "user").rglob("install-scripts.txt")), "left for the next start"
    pack = host / "custom_nodes" / "dpt-t2i"
    assert (pack / "pyproject.toml").read_text() == (clone / "pyproject.toml").read_text()
    log = run(["main.py", "--cpu", "--quick-test-for-ci"], host)
    assert f"seconds: {pack}\n" in log, log


def run(arguments: list[str], host: Path, **environment: str) -> str:
    """Output of a Python process in a ComfyUI."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=host,
        env=os.environ | {"COMFYUI_PATH": str(host), "COLUMNS": "1000"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def own_comfyui(folder: Path) -> Path:
    """The host's code without its data.

    The Manager installs beside `folder_paths.py`, links resolved, so files are copied.
    """
    folder.mkdir()
    for entry in find_comfyui().iterdir():
        if entry.suffix in (".py", ".toml", ".txt"):
            shutil.copy(entry, folder)
        elif entry.is_dir() and entry.name not in DATA and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    for name in DATA:
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The checkout's HEAD as users get it from git."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    path = tmp_path_factory.mktemp("clones") / "dpt-t2i"
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True, timeout=LIMIT)
    return path
