"""The folder in which the demo model is made, and what its stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..distributed import process_state
from ..files import write_tensors
from ..training.backbone import Backbone, PhraseEncoder
from ..training.config import LoopConfig
from ..training.loop import train
from . import model
from .architectures import UNET, architecture_of
from .datasets import ShapesGrounding, ShapesMatching
from .recipe import Recipe

SEED = 0

Tensors = dict[str, torch.Tensor]


class Workspace:
    """One folder: a file of tensors for every stage that is done, and the runs of the others.

    Args:
        folder: made where there is none.
        recipe: settings.
        architecture: of the network.
    """

    def __init__(
        self, folder: str | Path, recipe: Recipe | None = None, architecture: str = UNET
    ) -> None:
        self.folder, self.recipe = Path(folder), recipe or Recipe()
        self.architecture = architecture_of(architecture)
        self.folder.mkdir(parents=True, exist_ok=True)

    def file(self, stage: str) -> Path:
        """What a stage makes."""
        return self.folder / f"{stage}.safetensors"

    def tensors(self, stage: str) -> Tensors:
        """What a stage has made."""
        return load_file(self.file(stage))

    def save(self, stage: str, tensors: Tensors) -> None:
        """Keep what a stage has made, and drop the shares of which it was put together."""
        write_tensors(self.file(stage), tensors)
        for share in self.folder.glob(f"{stage}-*-of-*.safetensors"):
            share.unlink()

    def load(self, stage: str, module: nn.Module) -> nn.Module:
        """A module with the weights that a stage has made, float32."""
        module.load_state_dict({key: value.float() for key, value in self.tensors(stage).items()})
        return module

    def train(
        self, stage: str, task: nn.Module, data: Any, config: LoopConfig, **more: Any
    ) -> None:
        """Run the training of a stage in a folder of its own; see
        :func:`dpt_core.training.loop.train`."""
        settings = asdict(self.recipe).items()
        about = {name: value for name, value in settings if not isinstance(value, dict)}
        train(task, data, config, self.folder / stage, about=about, **more)

    def backbone(self, network: nn.Module) -> Backbone:
        """The demo's model around a UNet or a transformer, frozen."""
        tokenizer = model.load_tokenizer()
        text = self.load("text_encoder", model.new_text_encoder(tokenizer))
        vae = self.load("autoencoder_finetuning", model.new_vae())
        return Backbone.of(self.architecture.pipeline_of(network, vae, text, tokenizer))

    def trained_backbone(self) -> Backbone:
        """The demo's model with its trained network, frozen."""
        return self.backbone(self.load(self.architecture.trained, self.architecture.new()))

    def phrase_encoder(self) -> PhraseEncoder:
        """The demo's text encoder, as the encoder of referring expressions."""
        tokenizer = model.load_tokenizer()
        encoder = self.load("text_encoder", model.new_text_encoder(tokenizer))
        return PhraseEncoder(tokenizer, encoder)

    def examples(self) -> tuple[ShapesMatching, ShapesGrounding]:
        """Matching and grounding examples."""
        latents = self.tensors("latents")["latents"]
        return ShapesMatching(latents), ShapesGrounding(latents)

    def shared(self, stage: str, work: Callable[[range], Tensors], count: int) -> Tensors:
        """What all processes together make of `count` items, in order; the main one gets it.

        Args:
            stage: names the shares that are kept until the stage is done.
            work: makes tensors `[n, ...]` of `n` items, given by their indices.
            count: how many items there are.
        """
        state = process_state()
        of, rank = state.num_processes, state.process_index
        shares = [self.folder / f"{stage}-{one}-of-{of}.safetensors" for one in range(of)]
        if not shares[rank].exists():
            write_tensors(shares[rank], work(range(rank, count, of)))
        state.wait_for_everyone()
        if not state.is_main_process:
            return {}
        made = [load_file(share) for share in shares]
        together = {}
        for name, first in made[0].items():
            together[name] = first.new_empty(count, *first.shape[1:])
            for one, each in enumerate(made):
                together[name][one::of] = each[name]
        return together


def progress(batches: Any, name: str) -> Any:
    """A progress bar; of several processes only the main one shows it."""
    from tqdm.auto import tqdm

    return tqdm(batches, name, disable=not process_state().is_main_process)
