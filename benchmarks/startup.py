"""What the pack adds to the host's start, and what loading the published adapter takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .sizes import adapter_config

ROOT = Path(__file__).resolve().parent.parent

IMPORT = """
import asyncio, sys, time
sys.path[:0] = [{tests!r}]
from comfy_process import enter_host, load_pack
enter_host()
import server, nodes, comfy_api.latest, comfy_extras.nodes_custom_sampler  # the host has them
start = time.perf_counter()
pack = load_pack()
asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
print(time.perf_counter() - start)
"""


def import_seconds(repeats: int = 3) -> float:
    """Seconds, at best, from a started host to our list of nodes, in fresh processes."""
    script = IMPORT.format(tests=str(ROOT / "tests"))
    found = []
    for _ in range(repeats):
        run = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        )
        found.append(float(run.stdout.split()[-1]))
    return min(found)


def load_seconds(repeats: int = 3) -> tuple[float, float]:
    """Seconds, at best, of loading an adapter of the published size, and of reading its bytes."""
    config = adapter_config("sd21")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        save_checkpoint(path, Checkpoint(config, DiscriminativeAdapter(config), {}))
        loads = [_seconds(lambda: load_checkpoint(path)) for _ in range(repeats)]
        reads = [_seconds(path.read_bytes) for _ in range(repeats)]
    return min(loads), min(reads)


def _seconds(run: object) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
