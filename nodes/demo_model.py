"""The small model that ships with the pack."""

from comfy_api.latest import io

from .host.adapter import AdapterIO
from .host.aliases import search_aliases
from .host.demo import load_demo


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_DemoModel",
            display_name="DPT Demo Model",
            category="DPT",
            description="A small model that draws coloured shapes, with its adapter and LoRA: the "
            "whole method in seconds on a CPU, without a download. It draws 128 x 128 pixels.",
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Draws coloured shapes."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
                AdapterIO.Output(
                    display_name="adapter", tooltip="Adapter and LoRA trained on this model."
                ),
            ],
            **search_aliases("DPT demo", "try without download", "prompt adherence"),
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_demo())
