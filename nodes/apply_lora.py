"""Apply the LoRA of a DPT checkpoint."""

from comfy_api.latest import io

from ..dpt_core.lora import STRONGEST
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.lora import with_lora


class ApplyLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_ApplyLoRA",
            display_name="Apply DPT LoRA",
            category="DPT",
            description="Applies the LoRA that DPT tuning trained together with the adapter. It "
            "stacks with other LoRAs.",
            inputs=[
                io.Model.Input("model", tooltip="The model the adapter was trained on."),
                AdapterIO.Input("adapter", tooltip="A checkpoint that brings a LoRA (stage 2)."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-STRONGEST,
                    max=STRONGEST,
                    step=0.05,
                    tooltip="How much of the LoRA is added. The paper uses 1.0; 0 leaves the model "
                    "as it is.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the LoRA.")],
            **search_aliases("DPT LoRA", "prompt adherence"),
        )

    @classmethod
    def execute(cls, model: object, adapter: LoadedAdapter, strength: float) -> io.NodeOutput:
        return io.NodeOutput(with_lora(model, adapter, strength))
