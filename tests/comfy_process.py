"""A real ComfyUI inside this process, and our pack loaded as it loads packs."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from comfy_copy import ROOT, find_comfyui


def enter_host(cpu: bool = True) -> None:
    """Put the host first on the path and start it, for the CPU as `main.py --cpu` does."""
    sys.path.insert(0, str(find_comfyui()))
    from comfy.cli_args import args

    args.cpu = cpu
    import utils.extra_config  # noqa: F401  before older nodes.py put comfy/utils.py first


def load_pack() -> ModuleType:
    """Our pack as the host loads it: a module made from its folder, here `dpt_pack`."""
    spec = importlib.util.spec_from_file_location(
        "dpt_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["dpt_pack"] = pack
    spec.loader.exec_module(pack)
    importlib.import_module("dpt_pack.nodes")
    return pack
