"""A real ComfyUI inside the test process, and our pack loaded as it loads packs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from comfy_copy import find_comfyui
from comfy_process import enter_host, load_pack
from comfy_server import Server

enter_host()
load_pack()


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    """The host runs every node under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written onto nodes."""
    from dpt_pack.nodes.host.progress import PromptServer

    lines: list[str] = []
    instance = SimpleNamespace(send_progress_text=lambda text, node: lines.append(text))
    monkeypatch.setattr(PromptServer, "instance", instance, raising=False)
    return lines


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
        save_checkpoint(adapters / "my-sdxl-adapter.safetensors", tiny_adapter().checkpoint)
        wide = tiny_adapter(in_channels=40).checkpoint
        save_checkpoint(adapters / "other_family.safetensors", wide)
        real = tiny_adapter(in_channels=MODEL_CHANNELS, text_width=1024).checkpoint
        lora = random_lora(model_patcher(real_config("sd21")))
        published = {**real.adapter.state_dict(), **lora}  # bare keys, no config
        torch.save(published, adapters / "pytorch_model.bin")
        write_checkpoint(server.base / "models/checkpoints/v2-1_512-ema-pruned.safetensors")
        write_control_net(server.base / "models/controlnet/control_v11p_sd21_canny.safetensors")
    shutil.copy(find_comfyui() / "input" / "example.png", server.base / "input")
    (adapters / "no_adapter.safetensors").write_bytes(b"something else")
    server.start()
    yield server
    server.stop()
