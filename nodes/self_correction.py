"""Make a model correct itself in any sampler."""

from comfy_api.latest import io

from ..dpt_core.self_correction import MODES, RULES
from .host.adapter import AdapterIO, LoadedAdapter
from .host.correction import CUSTOM, PRESETS, chosen, with_self_correction
from .host.progress import show_scores


def correction_inputs() -> list[io.Input]:
    """The settings of a :class:`~nodes.host.correction.Correction`, as node inputs."""
    return [
        io.Combo.Input(
            "preset",
            options=[CUSTOM, *PRESETS],
            default=CUSTOM,
            tooltip="custom: the settings below. The others take their place: fast and balanced "
            "correct the steps where it pays most, published does what the paper does.",
        ),
        io.Float.Input(
            "strength",
            default=0.5,
            min=0.0,
            max=10000.0,
            step=0.05,
            tooltip="How far the latent moves along the score's gradient (the paper's guidance "
            "factor, published value 0.5). Larger corrects more; 0 switches it off at no cost.",
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Where in the sampling correction begins. The paper corrects from 0.",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Where correction ends. The paper corrects to 1; the layout forms early, so "
            "an earlier end saves time.",
        ),
        io.Int.Input(
            "every_n_steps",
            default=1,
            min=1,
            max=1000,
            tooltip="Correct every n-th step only. The paper corrects every step (1).",
        ),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default="exact",
            tooltip="exact: the paper's loop. The others take about half the extra time: lagged "
            "moves the next step's latent, guidance moves the step's own prediction.",
        ),
        io.Combo.Input(
            "step",
            options=list(RULES),
            default="published",
            optional=True,
            tooltip="published: the paper's step, strength times the gradient. normalised: the "
            "gradient's direction with a length of its own (try strength 0.02 to 0.1). annealed: "
            "strength times the gradient times the share of noise (try 10 to 50).",
        ),
        io.Int.Input(
            "inner_steps",
            default=1,
            min=1,
            max=20,
            optional=True,
            tooltip="Moves in a row at each corrected step, each with its own gradient and its own "
            "cost. The paper makes one. Only with mode exact.",
        ),
    ]


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
        )

    @classmethod
    def execute(
        cls,
        model: object,
        adapter: LoadedAdapter,
        preset: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        every_n_steps: int,
        mode: str,
        step: str = "published",
        inner_steps: int = 1,
    ) -> io.NodeOutput:
        correction = chosen(
            preset, strength, start_percent, end_percent, every_n_steps, mode, step, inner_steps
        )
        listener = show_scores(cls.hidden.unique_id)
        return io.NodeOutput(with_self_correction(model, adapter, correction, listener))
