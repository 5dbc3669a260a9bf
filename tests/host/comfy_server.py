"""A real ComfyUI server with our pack installed, and a client of its HTTP API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests
import websocket
from comfy_copy import ROOT, find_comfyui

HERE = Path(__file__).resolve().parent
MODELS = ("checkpoints", "controlnet", "dpt")
START_LIMIT = 600
RUN_LIMIT = 600


@dataclass
class Outcome:
    """What one queued prompt led to.

    Attributes:
        outputs: the host's outputs by node.
        error: the host's execution error, or None.
        interrupted: whether it was cancelled.
        texts: texts shown on nodes while it ran.
        live: what was told of nodes inside subgraphs.
        previews: number of latent previews.
        progress: (node, value, of) as they came.
    """

    outputs: dict = field(default_factory=dict)
    error: dict | None = None
    interrupted: bool = False
    texts: list[str] = field(default_factory=list)
    live: list[dict] = field(default_factory=list)
    previews: int = 0
    progress: list[tuple[str, int, int]] = field(default_factory=list)


class Server:
    """A ComfyUI process over a base directory of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for folder in ("custom_nodes", "input", *(f"models/{kind}" for kind in MODELS)):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, target in (("dpt-t2i", ROOT), ("tiny_pack", HERE / "tiny_pack")):
            (base / "custom_nodes" / name).symlink_to(target)
        empty = base / "custom_nodes" / "empty_pack"
        empty.mkdir()
        (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")

    def start(self, previews: str = "latent2rgb", cache: str = "--cache-none") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = self.base / "log.txt"
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port",
                    self.address.split(":")[1], "--base-directory", str(self.base),
                    cache, "--preview-method", previews,
                ],
                cwd=find_comfyui(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )  # fmt: skip
        limit = time.monotonic() + START_LIMIT
        while True:
            try:
                return requests.get(f"http://{self.address}/queue", timeout=5).raise_for_status()
            except requests.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()}") from None
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def get(self, path: str) -> dict:
        answer = requests.get(f"http://{self.address}/{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def has(self, path: str) -> bool:
        """Whether the host serves something there."""
        return requests.get(f"http://{self.address}/{path}", timeout=60).status_code != 404

    def post(self, path: str, content: dict) -> dict:
        text = json.dumps(content)  # which writes NaN, too, as front ends have been seen to
        kind = {"Content-Type": "application/json"}
        answer = requests.post(f"http://{self.address}/{path}", text, headers=kind, timeout=60)
        assert answer.ok, answer.text
        return answer.json() if answer.content else {}

    def run(
        self,
        prompt: dict,
        during: Callable[[Outcome], None] = lambda seen: None,
        limit: float = RUN_LIMIT,
    ) -> Outcome:
        """Queue a prompt in API format and follow it to its end.

        Args:
            prompt: node id → class and inputs.
            during: called after each progress message.
            limit: seconds without a message after which it hangs, which is an error.
        """
        client, seen = uuid.uuid4().hex, Outcome()
        socket = websocket.create_connection(f"ws://{self.address}/ws?clientId={client}", limit)
        try:
            ours = self.post("prompt", {"prompt": prompt, "client_id": client})["prompt_id"]
            while True:
                message = socket.recv()
                if isinstance(message, bytes):
                    kind = int.from_bytes(message[:4], "big")
                    if kind == 3:
                        seen.texts.append(message[8:].decode(errors="replace"))
                    else:
                        seen.previews += 1
                    continue
                event = json.loads(message)
                data = event["data"]
                if data.get("prompt_id") not in (None, ours):
                    continue
                if event["type"] == "progress":
                    seen.progress.append((data["node"], data["value"], data["max"]))
                    during(seen)
                elif event["type"] == "dpt_live":
                    seen.live.append(data)
                elif event["type"] == "execution_error":
                    seen.error = data
                    return seen
                elif event["type"] == "execution_interrupted":
                    seen.interrupted = True
                    return seen
                elif event["type"] == "execution_success":
                    seen.outputs = self._outputs(ours)
                    return seen
        finally:
            socket.close()

    def _outputs(self, prompt_id: str) -> dict:
        while not (history := self.get(f"history/{prompt_id}")):
            time.sleep(0.05)
        return history[prompt_id]["outputs"]

    def output(self, item: dict) -> Path:
        """Where a saved output lies."""
        return self.base / item.get("type", "output") / item["subfolder"] / item["filename"]
