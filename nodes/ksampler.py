"""The host's KSampler, correcting itself, with a report of the score."""

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from nodes import common_ksampler  # the host's nodes.py: ours is a relative import away

from ..dpt_core.correction import Correction
from ..dpt_core.plots import drawn, score_curves
from .correction_inputs import PLAIN, contradiction, correction_inputs
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.correction import with_self_correction
from .host.pictures import to_image
from .host.plain import with_scores_read
from .host.progress import ShowPlainScores, ShowScores


def sampler_inputs() -> list[io.Input]:
    """The inputs of the host's KSampler."""
    return [
        io.Model.Input("model", tooltip="The model that denoises."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The seed of the noise.",
        ),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Denoising steps."),
        io.Float.Input(
            "cfg",
            default=7.5,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Classifier-free guidance scale. The paper uses 7.5.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            tooltip="The sampler. The paper samples with DDIM.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            tooltip="How noise levels are spread over the steps.",
        ),
        io.Conditioning.Input(
            "positive",
            tooltip="What to draw; encode it with DPT Text Encode (on SD 1.x "
            "CLIPTextEncode serves too).",
        ),
        io.Conditioning.Input("negative", tooltip="What not to draw. It is never corrected."),
        io.Latent.Input("latent_image", tooltip="The latent to denoise."),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of the latent is redrawn; below 1 for image to image.",
        ),
        AdapterIO.Input(
            "adapter",
            optional=True,
            tooltip="The adapter that scores alignment. Without it this is the plain KSampler.",
        ),
    ]


PLAIN_HELP = (
    "plain: the plain sampler's picture, with its score; a correction from the same noise shows it "
    "beside its own. "
)


class KSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_KSampler",
            display_name="DPT KSampler",
            category="DPT",
            description="KSampler with self-correction: the latent climbs its alignment score "
            "while it is denoised.",
            inputs=[*sampler_inputs(), *correction_inputs(PLAIN, about=PLAIN_HELP)],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The denoised latent."),
                io.Image.Output(
                    display_name="report", tooltip="Alignment score against step, a line per image."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases(
                "prompt adherence",
                "prompt following",
                "attribute binding",
                "self-correcting sampler",
            ),
        )

    validate_inputs = classmethod(contradiction)

    @classmethod
    def execute(
        cls,
        model: object,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list,
        negative: list,
        latent_image: dict,
        denoise: float,
        preset: str,
        adapter: LoadedAdapter | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        node = cls.hidden.unique_id
        if preset == PLAIN:
            listener: ShowScores = ShowPlainScores(node)
            model = with_scores_read(model, adapter, listener)
        else:
            listener, correction = ShowScores(node), Correction.chosen(preset, **settings)
            model = with_self_correction(model, adapter, correction, listener)
        (latent,) = common_ksampler(
            model,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
        )
        return io.NodeOutput(latent, to_image(drawn(score_curves, listener.scores, listener.plain)))
