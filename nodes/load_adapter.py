"""Load a DPT checkpoint."""

import folder_paths
from comfy_api.latest import io

from .host.adapter import FOLDER, AdapterIO, load_adapter


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_LoadAdapter",
            display_name="Load DPT Adapter",
            category="DPT",
            description="Loads a DPT checkpoint: the adapter that scores alignment and, if the "
            "file has one, the DPT LoRA.",
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A file in models/dpt: .safetensors made by `dpt convert` or DPT "
                    "training, or the published pytorch_model.bin.",
                )
            ],
            outputs=[
                AdapterIO.Output(
                    display_name="adapter", tooltip="Adapter and LoRA for the other DPT nodes."
                )
            ],
        )

    @classmethod
    def execute(cls, adapter_name: str) -> io.NodeOutput:
        return io.NodeOutput(
            load_adapter(folder_paths.get_full_path_or_raise(FOLDER, adapter_name))
        )
