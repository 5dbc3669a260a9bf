"""Run the tests on a machine that has only Python: `python3 tests/run.py [pytest arguments]`.

Makes `.venv` in the checkout, installs torch for the CPU and what the tests need, brings a real
ComfyUI, and calls pytest. A second call finds everything in place.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from comfy_copy import find_comfyui

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
TORCH = ["torch==2.9.1", "torchvision==0.24.1"]
TORCHAUDIO = ["torchaudio==2.9.*"]


def pip(*arguments: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *arguments], check=True)


def main() -> int:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv"], check=True)
        pip(*TORCH)
        pip(*TORCHAUDIO)
    comfyui = find_comfyui()
    pip("--requirement", str(comfyui / "requirements.txt"), "--editable", f"{ROOT}[test]")
    return subprocess.run([PYTHON, "-m", "pytest", *sys.argv[1:]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
