"""Score how well pictures agree with a prompt."""

import torch
from comfy_api.latest import io

from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.measure import measure
from .host.progress import show
from .host.read_once import encode_pictures


class AlignmentScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_AlignmentScore",
            display_name="DPT Alignment Score",
            category="DPT",
            description="Noises each picture to a timestep and asks the adapter how well it agrees "
            "with the prompt. Compare scores of one prompt with each other: they rank pictures.",
            inputs=[
                io.Model.Input("model", tooltip="The model the adapter was trained on."),
                AdapterIO.Input("adapter", tooltip="The adapter that scores alignment."),
                io.Vae.Input("vae", tooltip="Encodes the pictures."),
                io.Image.Input("images", tooltip="The pictures to score."),
                io.Conditioning.Input("positive", tooltip="The prompt, from DPT Text Encode."),
                io.Int.Input(
                    "timestep",
                    default=500,
                    min=0,
                    max=999,
                    tooltip="Noise level at which the adapter reads: 0 is clean, 999 all noise.",
                ),
                io.Int.Input(
                    "draws",
                    default=4,
                    min=1,
                    max=256,
                    tooltip="Noise draws to average over; more is steadier and slower.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The seed of the noise; every picture gets the same noise.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="mean", tooltip="Mean score of the pictures."),
                io.Float.Output(
                    display_name="scores", is_output_list=True, tooltip="A score per picture."
                ),
                io.String.Output(display_name="text", tooltip="The scores as a table."),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases(
                "prompt adherence", "prompt alignment", "score images", "rate images", "CLIP score"
            ),
        )

    @classmethod
    def execute(
        cls,
        model: object,
        adapter: LoadedAdapter,
        vae: object,
        images: torch.Tensor,
        positive: list,
        timestep: int,
        draws: int,
        seed: int,
    ) -> io.NodeOutput:
        latents = encode_pictures(vae, images)
        scores = measure(model, adapter, latents, positive, timestep, draws, seed)
        means, spreads = scores.mean(0), scores.std(0, correction=0)
        lines = [
            f"image {index + 1}: {mean:.4f} ± {spread:.4f}"
            for index, (mean, spread) in enumerate(zip(means, spreads, strict=True))
        ]
        text = "\n".join([*lines, f"mean: {means.mean():.4f}"])
        show(cls.hidden.unique_id, text)
        return io.NodeOutput(float(means.mean()), means.tolist(), text)
