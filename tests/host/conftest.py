"""A real ComfyUI inside the test process, and our pack loaded as it loads packs."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from comfy_copy import ROOT, find_comfyui
from comfy_server import Server


def _enter_host() -> None:
    """Put the host first on the path and start it for the CPU, as `main.py --cpu` does."""
    sys.path.insert(0, str(find_comfyui()))
    from comfy.cli_args import args

    args.cpu = True
    import utils.extra_config  # noqa: F401  before older nodes.py put comfy/utils.py first


_enter_host()


def load_pack() -> ModuleType:
    """Our pack as the host loads it: a module made from its folder."""
    spec = importlib.util.spec_from_file_location(
        "dpt_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["dpt_pack"] = pack
    spec.loader.exec_module(pack)
    importlib.import_module("dpt_pack.nodes")
    return pack


load_pack()


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    """The host runs every node under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ComfyUI with the pack, narrow models and adapters for them."""
    from dpt_pack.dpt_core.checkpoint import save_checkpoint
    from real_files import MODEL_CHANNELS, real_config, write_checkpoint, write_control_net
    from tiny_models import model_patcher, random_lora, tiny_adapter, tiny_model

    server = Server(tmp_path_factory.mktemp("comfyui"))
    adapters = server.base / "models" / "dpt"
    with torch.inference_mode():
        whole = tiny_adapter(lora_for=tiny_model("sd15")).checkpoint
        save_checkpoint(adapters / "tiny.safetensors", whole)
        save_checkpoint(adapters / "stage1.safetensors", tiny_adapter().checkpoint)
        wide = tiny_adapter(in_channels=40).checkpoint
        save_checkpoint(adapters / "other_family.safetensors", wide)
        real = tiny_adapter(in_channels=MODEL_CHANNELS, text_width=1024).checkpoint
        lora = random_lora(model_patcher(real_config("sd21")))
        save_checkpoint(adapters / "dpt-sd21-base.safetensors", replace(real, lora=lora))
        write_checkpoint(server.base / "models/checkpoints/v2-1_512-ema-pruned.safetensors")
        write_control_net(server.base / "models/controlnet/control_v11p_sd21_canny.safetensors")
    shutil.copy(find_comfyui() / "input" / "example.png", server.base / "input")
    (adapters / "no_adapter.safetensors").write_bytes(b"something else")
    server.start()
    yield server
    server.stop()
