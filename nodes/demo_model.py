"""The small model that ships with the pack."""

from comfy_api.latest import io

from ..dpt_core.demo.architectures import ARCHITECTURES, UNET
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
            inputs=[
                io.Combo.Input(
                    "architecture",
                    options=list(ARCHITECTURES),
                    default=UNET,
                    optional=True,
                    tooltip="unet: built like Stable Diffusion 1.x. dit: a transformer, built like "
                    "Stable Diffusion 3.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Draws coloured shapes."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
                AdapterIO.Output(
                    display_name="adapter",
                    tooltip="Trained on this model; the UNet's has a LoRA.",
                ),
            ],
            **search_aliases("DPT demo", "try without download", "prompt adherence"),
        )

    @classmethod
    def execute(cls, architecture: str = UNET) -> io.NodeOutput:
        return io.NodeOutput(*load_demo(architecture=architecture))
