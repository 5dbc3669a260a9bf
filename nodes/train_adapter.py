"""Train an adapter on the wired model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..dpt_core.training.recipe import RunSettings
from .correction_inputs import setting_inputs
from .host.adapter import AdapterIO, managed
from .host.aliases import search_aliases
from .host.pictures import to_image
from .host.progress import show
from .host.wires import DataIO, LossMapIO

if TYPE_CHECKING:
    from ..dpt_core.training.data.rows import CaptionedPictures


class TrainAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_TrainAdapter",
            display_name="DPT Train Adapter",
            category="DPT",
            is_experimental=True,
            description="Trains an adapter on the wired model, which stays as it is. Cancel at any "
            "time: run again, and it goes on where it stopped.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the adapter is to read."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its autoencoder."),
                DataIO.Input("data", tooltip="From DPT Training Data."),
                *setting_inputs(RunSettings, optional=False),
                io.String.Input(
                    "run_name",
                    default="my adapter",
                    tooltip="The run's folder in output/dpt. The same name goes on with a run.",
                ),
            ],
            outputs=[
                AdapterIO.Output(display_name="adapter", tooltip="For the other DPT nodes."),
                LossMapIO.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="report",
                    tooltip="Losses, how often held-out pictures are told right, boxes found.",
                ),
            ],
            **search_aliases("train DPT", "probing", "discriminative adapter", "training loop"),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        clip: object,
        vae: object,
        data: CaptionedPictures,
        run_name: str,
        **settings: Any,
    ) -> io.NodeOutput:
        from .host.training import losses_of, train_adapter

        settings = RunSettings(**settings | {"tap": settings["tap"].strip()})
        node = cls.hidden.unique_id
        trained = train_adapter(model, clip, vae, data, settings, run_name, node)
        best, config = trained.best, trained.checkpoint.config
        show(
            node,
            f"done: tap {config.tap}, right text above wrong {best['itm']:.0%}, right picture "
            f"{best['itm_images']:.0%}, AUC {best['auc']:.2f} on held-out pictures, after step "
            f"{best['step']} of {len(trained.rows)}",
        )
        adapter = managed(run_name, trained.checkpoint)
        return io.NodeOutput(adapter, losses_of(trained.rows), to_image(trained.picture))
