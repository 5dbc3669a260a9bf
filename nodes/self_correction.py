"""Make a model correct itself in any sampler."""

from typing import Any

from comfy_api.latest import io

from ..dpt_core.correction import Correction
from .correction_inputs import contradiction, correction_inputs
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.correction import with_self_correction
from .host.progress import ShowScores


class SelfCorrection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_SelfCorrection",
            display_name="DPT Self-Correction",
            category="DPT",
            description="Before each denoising step, moves the latent along the gradient of its "
            "alignment score. Works with any sampler; a second one replaces the first.",
            inputs=[
                io.Model.Input("model", tooltip="The model the adapter was trained on."),
                AdapterIO.Input("adapter", tooltip="The adapter that scores alignment."),
                *correction_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, correcting itself.")
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases(
                "prompt adherence", "prompt following", "attribute binding", "guidance"
            ),
        )

    validate_inputs = classmethod(contradiction)

    @classmethod
    def execute(
        cls,
        model: object,
        adapter: LoadedAdapter,
        preset: str,
        **settings: Any,
    ) -> io.NodeOutput:
        correction = Correction.chosen(preset, **settings)
        listener = ShowScores(cls.hidden.unique_id)
        return io.NodeOutput(with_self_correction(model, adapter, correction, listener))
