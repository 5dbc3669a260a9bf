"""Save an adapter into models/dpt."""

import os

import folder_paths
from comfy_api.latest import io

from ..dpt_core.checkpoint import save_checkpoint
from .host.adapter import FOLDER, AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.names import inside
from .host.progress import show


class SaveAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_SaveAdapter",
            display_name="Save DPT Adapter",
            category="DPT",
            description="Saves an adapter, with its LoRA if it has one, as a .safetensors file in "
            "models/dpt, where Load DPT Adapter finds it. Files are numbered: none is overwritten.",
            inputs=[
                AdapterIO.Input("adapter", tooltip="From DPT Train Adapter, for example."),
                io.String.Input(
                    "filename",
                    default="my adapter",
                    tooltip="Name of the file, also with a folder before it; a number follows.",
                ),
            ],
            outputs=[],
            **search_aliases("DPT saver", "export adapter"),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, adapter: LoadedAdapter, filename: str) -> io.NodeOutput:
        root = folder_paths.get_folder_paths(FOLDER)[0]
        os.makedirs(root, exist_ok=True)
        name = filename.strip().removesuffix(".safetensors")
        inside(root, name, "filename")
        folder, stem, counter, *_ = folder_paths.get_save_image_path(name, root)
        path = os.path.join(folder, f"{stem}_{counter:05}_.safetensors")
        save_checkpoint(path, adapter.checkpoint)
        show(cls.hidden.unique_id, f"saved {os.path.relpath(path, root)}")
        return io.NodeOutput()
