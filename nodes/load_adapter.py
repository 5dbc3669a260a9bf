"""Load a DPT checkpoint."""

import os

import folder_paths
from comfy_api.latest import io

from ..dpt_core.demo.load import CHECKPOINT, demo_file
from .host.adapter import FOLDER, AdapterIO, load_adapter
from .host.aliases import search_aliases

NOTHING = "nothing in models/dpt yet"
DEMO = "the demo model's"


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list(FOLDER)
        return io.Schema(
            node_id="DPT_LoadAdapter",
            display_name="Load DPT Adapter",
            category="DPT",
            description="Loads a DPT checkpoint: the adapter that scores alignment and, if the "
            "file has one, the DPT LoRA.",
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=[*(files or [NOTHING]), DEMO],
                    tooltip="A file in models/dpt: the published pytorch_model.bin as it is, or a "
                    ".safetensors from DPT training or `dpt convert`. Or the adapter that ships "
                    "for DPT Demo Model.",
                )
            ],
            outputs=[
                AdapterIO.Output(
                    display_name="adapter", tooltip="Adapter and LoRA for the other DPT nodes."
                )
            ],
            **search_aliases("DPT loader"),
        )

    @classmethod
    def fingerprint_inputs(cls, adapter_name: str) -> str:
        """Another file under the same name is loaded anew."""
        path = folder_paths.get_full_path(FOLDER, adapter_name)
        if path is None:
            return ""
        found = os.stat(path)
        return f"{found.st_mtime_ns} {found.st_size}"

    @classmethod
    def execute(cls, adapter_name: str) -> io.NodeOutput:
        if adapter_name == NOTHING:
            raise ValueError(
                "models/dpt holds no adapter. Put one there, for Stable Diffusion 2.1 the "
                "published https://huggingface.co/leigangqu/DPT-T2I/resolve/main/pytorch_model.bin "
                "as it is, then press R and choose it; or use DPT Demo Model, which needs no file"
            )
        if adapter_name == DEMO:
            return io.NodeOutput(load_adapter(str(demo_file(CHECKPOINT))))
        return io.NodeOutput(
            load_adapter(folder_paths.get_full_path_or_raise(FOLDER, adapter_name))
        )
