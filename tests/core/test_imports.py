"""Importing the method costs nothing beyond torch."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ["accelerate", "diffusers", "matplotlib", "peft", "scipy", "torchvision", "transformers"]


def test_dpt_core_imports_nothing_heavy():
    code = (
        "import sys, dpt_core, dpt_core.cli, dpt_core.diffusers;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "[]", output.stderr
