"""How the demo model is made: `dpt train demo FOLDER` runs every stage, each resumable.

With `torchrun --nproc-per-node 2 -m dpt_core train demo FOLDER` two processes share a stage's work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..distributed import process_state
from . import base_stages, dpt_stages
from .architectures import DIT, UNET, architecture_of
from .recipe import Recipe
from .workspace import Tensors, Workspace

logger = logging.getLogger(__name__)


class Stage(NamedTuple):
    """One stage.

    Attributes:
        name: of the stage, and of the file with what it makes.
        make: what it makes, from what the stages before have made.
        alone: the main process does it for all.
    """

    name: str
    make: Callable[[Workspace], Tensors]
    alone: bool = False


_UNET = (
    Stage("text_encoder", base_stages.train_text_encoder),
    Stage("autoencoder_pretraining", base_stages.pretrain_autoencoder),
    Stage("autoencoder_finetuning", base_stages.finetune_autoencoder),
    Stage("latents", base_stages.encode_pictures),
    Stage("denoiser_pretraining", base_stages.pretrain_denoiser),
    Stage("denoiser_finetuning", base_stages.finetune_denoiser),
    Stage("features", dpt_stages.cache_features),
    Stage("probing", dpt_stages.probe),
    Stage("tuning", dpt_stages.tune),
    Stage("export", dpt_stages.export, alone=True),
)
_DIT = (
    Stage("text_encoder", base_stages.shipped_text_encoder, alone=True),
    Stage("autoencoder_finetuning", base_stages.shipped_autoencoder, alone=True),
    Stage("latents", base_stages.encode_pictures),
    Stage("transformer", base_stages.train_transformer),
    Stage("features", dpt_stages.cache_features),
    Stage("probing", dpt_stages.probe_again),
    Stage("tuning", dpt_stages.tune_by_score),
    Stage("export", dpt_stages.export, alone=True),
)
STAGES = {UNET: _UNET, DIT: _DIT}
"""Architecture → stages in order; each uses what those before it made."""


def make_demo(
    folder: str | Path,
    until: str = "export",
    recipe: Recipe | None = None,
    architecture: str = UNET,
) -> None:
    """Run the stages up to one; those that are done are skipped.

    Args:
        folder: where the runs live and what they make; called again, it goes on.
        until: name of the last stage to run.
        recipe: settings.
        architecture: of the network: one of :data:`STAGES`.

    Raises:
        ValueError: no such stage or architecture, or the folder holds the other one.
        dpt_core.training.loop.Interrupted: a stage was asked to stop.
    """
    architecture_of(architecture)
    names = [stage.name for stage in STAGES[architecture]]
    if until not in names:
        raise ValueError(f"the stages are {', '.join(names)}; got {until!r}")
    others = {stage.name for each in STAGES.values() for stage in each} - set(names)
    if there := [name for name in sorted(others) if (Path(folder) / name).exists()]:
        raise ValueError(
            f"{folder} holds a run of another architecture ({', '.join(there)}): take another "
            "folder"
        )
    space, processes = Workspace(folder, recipe, architecture), process_state()
    for stage in STAGES[architecture][: names.index(until) + 1]:
        if not space.file(stage.name).exists():
            logger.info("demo model: %s", stage.name)
            made = stage.make(space) if processes.is_main_process or not stage.alone else {}
            if processes.is_main_process:
                space.save(stage.name, made)
        processes.wait_for_everyone()
