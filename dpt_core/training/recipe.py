"""How an adapter is trained on a frozen model: the recipe of the demo's adapter, or the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import AdapterConfig
from ..settings import check_settings, setting
from .config import MOST, LoopConfig

if TYPE_CHECKING:
    from ..losses import LossWeights


@dataclass(frozen=True)
class Recipe:
    """What sets ways of training an adapter apart.

    Attributes:
        encoder_layers: of the adapter.
        dropout: of the adapter, while it trains.
        recognition, calibration: coefficients of the losses that the paper does not have.
        whitened: train the adapter's input in whitened coordinates.
        patches: take squares of cells as one where the feature map is fine.
        views: of each picture at most, see :func:`~.data.views.with_views`.
        others: recognise among further hard negatives of each caption, too.
        lean: towards low noise levels, see :class:`~.features.NoisedExamples`.
        learning_rate, schedule, warmup, optimizer: see :class:`~.config.LoopConfig`.
    """

    encoder_layers: int
    dropout: float
    recognition: float
    calibration: float
    whitened: bool
    patches: bool
    views: int
    others: bool
    lean: float
    learning_rate: float
    schedule: str
    warmup: int
    optimizer: str

    def weights(self) -> LossWeights:
        """Coefficients of the losses."""
        from ..losses import LossWeights  # late: the host reads these settings when it starts

        return LossWeights(recognition=self.recognition, calibration=self.calibration)

    def loop(self, settings: RunSettings, batch_size: int) -> LoopConfig:
        """Settings of the training loop."""
        return LoopConfig(
            steps=settings.steps,
            batch_size=batch_size,
            learning_rate=settings.learning_rate or self.learning_rate,
            schedule=self.schedule,
            warmup=min(self.warmup, settings.steps // 10),
            seed=settings.seed,
            save_every=settings.save_every or max(1, settings.steps // 10),
            optimizer=self.optimizer,
        )

    def adapter(
        self, family: str, text: str, tap: str, channels: int, side: int, width: int, boxes: bool
    ) -> AdapterConfig:
        """The adapter for a model.

        Args:
            family, text, tap: as in the config.
            channels: at the tap.
            side: of the feature map, in cells.
            width: of the text vector.
            boxes: whether there are any to learn from; without them there are no grounding queries.
        """
        fine = side > FINE or (channels <= NARROW and side >= FINE // 2)
        small = SMALL if channels <= NARROW and width <= 2 * NARROW else {}
        sizes = {
            "in_channels": channels,
            "text_width": width,
            "patch": 2 if self.patches and fine and 4 * channels <= WIDEST else 1,
            "encoder_layers": self.encoder_layers,
            "dropout": self.dropout,
            **small,
        }
        if not boxes:
            sizes["grounding_queries"] = 0
        return AdapterConfig(family=family, text=text, tap=tap, **sizes)


FINE = 32
"""Side of a feature map above which squares of cells are taken as one."""

NARROW = 128
"""Channels of feature maps that say little in one cell."""

WIDEST = 8192
"""Numbers in a square of cells that are still whitened."""

SMALL = {"width": 128, "feed_forward": 512, "grounding_queries": 20, "classes": 65}
"""Sizes for models as narrow as the demo's."""

RECIPES = {
    "recommended": Recipe(2, 0.0, 4.0, 2.0, True, True, 3, True, 1.5, 7e-4, "cosine", 100, "muon"),
    "published": Recipe(
        1, 0.1, 0.0, 0.0, False, False, 1, False, 1.0, 1e-4, "constant", 0, "adamw"
    ),
}  # fmt: skip
"""By name, the default first. *recommended* is how the demo's adapter was made, and what helps
where pictures are few; *published* has the paper's losses, sizes and rate."""

AUTO = "auto"
"""The tap that a short trial chooses."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        recipe: one of :data:`RECIPES`.
        tap: where the adapter reads; :data:`AUTO` tries several.
        steps: of the optimiser.
        batch_size: examples in a step, each with six passes.
        learning_rate: 0 for the recipe's.
        examples: examples whose features are made once and kept; 0 makes them anew in every step.
        seed: of everything random.
        save_every: steps between checkpoints; 0 for ten in the run.

    Raises:
        ValueError: a setting is out of range.
    """

    recipe: str = setting(
        "recommended",
        "recommended: as the demo's adapter, and mirrored pictures and parts of them besides: for "
        "few pictures. published: the paper's losses and sizes.",
        choices=tuple(RECIPES),
    )
    tap: str = setting(
        AUTO,
        "Where the adapter reads the model: auto tries several and takes the one that tells right "
        "from wrong best. Or up1, block7, …",
    )
    steps: int = setting(
        8000,
        "Steps of training. The paper has 60,000 with 48 pictures each.",
        minimum=1, maximum=10_000_000,
    )  # fmt: skip
    batch_size: int = setting(
        8,
        "Examples in a step. Many small steps teach more than few large ones.",
        minimum=2, maximum=1024,
    )  # fmt: skip
    learning_rate: float = setting(
        0.0, "How fast it learns; 0 takes the recipe's.", minimum=0.0, maximum=0.1, step=0.00001
    )
    examples: int = setting(
        4096,
        "Examples that the model reads once, kept in memory and on disk while the adapter trains: "
        "fast. 0 has the model read new ones in every step: slow, without limit.",
        minimum=0, maximum=1_000_000,
    )  # fmt: skip
    seed: int = setting(0, "Of everything random.", minimum=0, maximum=MOST - 1)
    save_every: int = 0

    def __post_init__(self) -> None:
        check_settings(self)
        self.chosen.loop(self, self.batch_size)

    @property
    def chosen(self) -> Recipe:
        """The recipe itself."""
        return RECIPES[self.recipe]
