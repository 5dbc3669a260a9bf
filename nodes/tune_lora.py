"""Tune a LoRA on the model's own pictures, by their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..dpt_core.plots import drawn
from ..dpt_core.training.tuning_settings import STRENGTHS, TuneSettings
from .correction_inputs import setting_inputs
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.pictures import to_image
from .host.progress import show
from .host.wires import LossMapIO

if TYPE_CHECKING:
    import torch

    from ..dpt_core.training.tuning_run import Tuned


class TuneLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        candidates, *others = setting_inputs(TuneSettings, optional=False)
        return io.Schema(
            node_id="DPT_TuneLoRA",
            display_name="DPT Tune LoRA",
            category="DPT",
            is_experimental=True,
            description="Makes the model draw what the adapter finds right: it draws several "
            "pictures of each prompt, scores them, and trains a LoRA towards the better ones. "
            "Needs no pictures.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the adapter was trained on."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its autoencoder, for the report."),
                AdapterIO.Input("adapter", tooltip="The adapter that scores; not trained here."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    tooltip="A prompt in each line, as you would write them. Every eighth is not "
                    "trained on but drawn without the LoRA and with it at four strengths; the best "
                    "stays. Hundreds are better than tens.",
                ),
                io.Latent.Input("latent_image", tooltip="An empty latent of the size to draw."),
                candidates,
                io.Int.Input(
                    "sampling_steps",
                    default=20,
                    min=1,
                    max=1000,
                    tooltip="Denoising steps of each picture (euler, normal).",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of each picture. Take what you draw with.",
                ),
                *others,
                io.String.Input(
                    "run_name",
                    default="my LoRA",
                    tooltip="The run's folder in output/dpt. The same name goes on with a run.",
                ),
            ],
            outputs=[
                AdapterIO.Output(
                    display_name="adapter",
                    tooltip="The adapter with the LoRA, for Apply DPT LoRA and Save DPT Adapter.",
                ),
                LossMapIO.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="report",
                    tooltip="Prompts that were not trained on, drawn without the LoRA and with it.",
                ),
            ],
            **search_aliases(
                "train LoRA", "reinforcement learning", "reward tuning", "prompt adherence"
            ),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        clip: object,
        vae: object,
        adapter: LoadedAdapter,
        prompts: str,
        latent_image: dict,
        sampling_steps: int,
        cfg: float,
        run_name: str,
        **settings: Any,
    ) -> io.NodeOutput:
        from .host.studio import HostStudio, encoder, tune
        from .host.training import OnNode, run_folder

        node = cls.hidden.unique_id
        studio = HostStudio(model, adapter, encoder(clip), latent_image, sampling_steps, cfg)
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        found, tuned = tune(
            studio, lines, TuneSettings(**settings), run_folder(run_name), OnNode(node)
        )
        told = f"mean score {found.before:.3f} → {found.after:.3f} at strength {found.strength:g}"
        aside = f"the best of {len(STRENGTHS)} on {len(found.prompts)} prompts not trained on"
        show(node, f"done: {told}, {aside}")
        sheet = drawn(_sheet, found, vae)
        losses = {"loss": [row["score weighted"] for row in found.rows]}
        return io.NodeOutput(tuned, losses, to_image(sheet))


def _sheet(found: Tuned, vae: object) -> object:
    from ..dpt_core.training.report import tuning_sheet

    return tuning_sheet(found, [_decoded(vae, side[:4]) for side in found.pictures])


def _decoded(vae: object, latents: torch.Tensor) -> torch.Tensor:
    """Pictures `[B, H, W, 3]` in [0, 1] of latents."""
    pictures = vae.decode(latents)
    return pictures.reshape(-1, *pictures.shape[-3:])[..., :3].cpu()
