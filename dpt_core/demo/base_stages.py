"""The stages that make the demo's base model: text encoder, autoencoder, latents, denoiser."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ..distributed import slow_bf16
from ..training.config import LoopConfig
from . import model, transformer
from .autoencoder import AutoencoderTask, whiten
from .datasets import Captions, Crops, PairPictures, ShapesDenoising
from .denoiser import DenoiserTask, Levels, leaning, logit_normal
from .load import read_weights
from .preview import judged_preview
from .text_encoder import TextTask
from .workspace import SEED, Tensors, Workspace, progress

ENDLESS = 10**6
"""Captions and crops are drawn anew all the time; there are more than any run sees."""


def train_text_encoder(space: Workspace) -> Tensors:
    """The text encoder, on captions and their meanings."""
    tokenizer = model.load_tokenizer()
    torch.manual_seed(SEED)
    task = TextTask(tokenizer, model.new_text_encoder(tokenizer))
    data = Captions(ENDLESS)
    space.train("text_encoder", task, data, space.recipe.text_encoder, collate=list)
    return task.encoder.state_dict()


def pretrain_autoencoder(space: Workspace) -> Tensors:
    """The autoencoder, on crops of 64 pixels."""
    torch.manual_seed(SEED)
    task = AutoencoderTask(model.new_vae())
    data = Crops(ENDLESS, 64)
    space.train("autoencoder_pretraining", task, data, space.recipe.autoencoder_pretraining)
    return task.vae.state_dict()


def finetune_autoencoder(space: Workspace) -> Tensors:
    """The same on whole pictures; at the end its latents are whitened."""
    task = AutoencoderTask(space.load("autoencoder_pretraining", model.new_vae()))
    data = Crops(ENDLESS, 128, SEED + 1)
    space.train("autoencoder_finetuning", task, data, space.recipe.autoencoder_finetuning)
    sample = PairPictures(space.recipe.sample, SEED + 2)
    pictures = torch.cat([sample[index][:2] for index in range(len(sample))])
    whiten(task.vae, pictures, model.LATENT_SCALE)
    return task.vae.state_dict()


def shipped_text_encoder(space: Workspace) -> Tensors:
    """The text encoder that ships."""
    return read_weights("text_encoder")


def shipped_autoencoder(space: Workspace) -> Tensors:
    """The autoencoder that ships."""
    return read_weights("vae")


def encode_pictures(space: Workspace) -> Tensors:
    """Latents of the pictures of every pair, `latents` `[pairs, 3, 4, 16, 16]` float16."""
    vae = space.load("autoencoder_finetuning", model.new_vae()).eval()

    def encode(indices: range) -> Tensors:
        latents = []
        loader = DataLoader(Subset(PairPictures(space.recipe.pairs), indices), 32)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not slow_bf16()):
            for pictures in progress(loader, "latents"):
                means = vae.encode(pictures.flatten(0, 1)).latent_dist.mean
                latents.append((means * model.LATENT_SCALE).unflatten(0, pictures.shape[:2]).half())
        return {"latents": torch.cat(latents)}

    return space.shared("latents", encode, space.recipe.pairs)


def pretrain_denoiser(space: Workspace) -> Tensors:
    """The UNet, from random weights."""
    torch.manual_seed(SEED)
    config = space.recipe.denoiser_pretraining
    return _train_denoiser(
        space, model.new_unet(), config, "denoiser_pretraining", leaning(space.recipe.timestep_skew)
    )


def finetune_denoiser(space: Workspace) -> Tensors:
    """The UNet once more from a high learning rate, in larger batches."""
    unet = space.load("denoiser_pretraining", model.new_unet())
    config = space.recipe.denoiser_finetuning
    return _train_denoiser(
        space, unet, config, "denoiser_finetuning", leaning(space.recipe.timestep_skew)
    )


def train_transformer(space: Workspace) -> Tensors:
    """The transformer, on the UNet's text encoder and autoencoder."""
    torch.manual_seed(SEED)
    recipe = space.recipe
    levels = logit_normal(recipe.level_mean, recipe.level_deviation)
    network = transformer.start(transformer.new_transformer())
    return _train_denoiser(space, network, recipe.transformer, "transformer", levels)


def _train_denoiser(
    space: Workspace,
    network: nn.Module,
    config: LoopConfig,
    run: str,
    levels: Levels,
) -> Tensors:
    recipe = space.recipe
    backbone = space.backbone(network.train())
    backbone.network.requires_grad_(True)
    task = DenoiserTask(backbone, levels, wrong=recipe.wrong)
    data = ShapesDenoising(space.tensors("latents")["latents"])
    preview = judged_preview(backbone, space.architecture, recipe.previews, SEED + 3)
    space.train(run, task, data, config, collate=list, preview=preview)
    return task.network.state_dict()
