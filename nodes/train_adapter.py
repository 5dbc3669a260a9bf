"""Train an adapter on the wired model."""

from comfy_api.latest import io

from ..dpt_core.training.config import MOST
from ..dpt_core.training.data.rows import CaptionedPictures
from ..dpt_core.training.recipe import RECIPES, RunSettings
from .host.adapter import AdapterIO, managed
from .host.progress import show
from .host.training import DataIO, LossMapIO, as_image, losses_of, train_adapter

DEFAULTS = RunSettings()


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
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES),
                    tooltip="recommended: how the demo's adapter was made. published: the paper's "
                    "losses and sizes.",
                ),
                io.String.Input(
                    "tap",
                    default=DEFAULTS.tap,
                    tooltip="Where the adapter reads the model: auto tries several and takes the "
                    "one that tells right from wrong best. Or up1, block7, …",
                ),
                io.Int.Input(
                    "steps",
                    default=DEFAULTS.steps,
                    min=1,
                    max=10_000_000,
                    tooltip="Steps of training. The paper has 60,000 with 48 pictures each.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=DEFAULTS.batch_size,
                    min=2,
                    max=1024,
                    tooltip="Examples in a step. More is better, as far as memory goes.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=DEFAULTS.learning_rate,
                    min=0.0,
                    max=0.1,
                    step=0.00001,
                    tooltip="How fast it learns; 0 takes the recipe's.",
                ),
                io.Int.Input(
                    "examples",
                    default=DEFAULTS.examples,
                    min=0,
                    max=1_000_000,
                    tooltip="Examples that the model reads once, kept in memory and on disk while "
                    "the adapter trains: fast. 0 has the model read new ones in every step: slow, "
                    "without limit.",
                ),
                io.Int.Input(
                    "seed",
                    default=DEFAULTS.seed,
                    min=0,
                    max=MOST - 1,
                    control_after_generate=False,  # another seed is another run
                    tooltip="Of everything random.",
                ),
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
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        clip: object,
        vae: object,
        data: CaptionedPictures,
        recipe: str,
        tap: str,
        steps: int,
        batch_size: int,
        learning_rate: float,
        examples: int,
        seed: int,
        run_name: str,
    ) -> io.NodeOutput:
        settings = RunSettings(
            recipe, tap.strip(), steps, batch_size, learning_rate, examples, seed
        )
        node = cls.hidden.unique_id
        trained = train_adapter(model, clip, vae, data, settings, run_name, node)
        last, config = trained.history[-1], trained.checkpoint.config
        show(
            node,
            f"done: tap {config.tap}, right text above wrong {last['itm']:.0%}, right picture "
            f"{last['itm_images']:.0%}, AUC {last['auc']:.2f} on held-out pictures",
        )
        adapter = managed(run_name, trained.checkpoint)
        return io.NodeOutput(adapter, losses_of(trained.rows), as_image(trained.picture))
