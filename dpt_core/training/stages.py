"""Probing and tuning of a user's own model, with the published settings."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..adapter import DiscriminativeAdapter
from ..backbones.checks import check_adapter, default_tap
from ..backbones.prompts import moments_of
from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..config import AdapterConfig
from ..distributed import process_state
from ..fingerprints import file_digest, fingerprint
from ..host_names import stored
from ..losses import LossWeights
from .backbone import Backbone, PhraseEncoder
from .config import LoopConfig
from .data.datasets import GroundingDataset, MatchingDataset, images_digest
from .data.hard_negatives import HardNegativeTable
from .data.jsonl import JsonlGrounding, JsonlMatching
from .data.latents import with_latents
from .data.precompute import precompute
from .data.refcoco import RefCoco
from .discrimination import DiscriminationTask, Pairs, collate
from .loop import train
from .lora import ATTENTION, RANK, add_lora, lora_of
from .preview import box_preview

logger = logging.getLogger(__name__)

AUTO = "auto"
"""What stands for the tap that fits a family."""

ROWS = 32
"""Texts that are encoded together."""

PROMPTS = 256
"""Matching examples whose captions tell the mean and scale of text vectors."""


@dataclass(frozen=True)
class StageConfig:
    """Everything that is set in a stage; the defaults are the published values.

    Attributes:
        loop: optimisation.
        weights: coefficients of the losses.
        size: side of the square pictures in pixels.
        tap, patch: where the adapter reads the network (auto:
            :func:`~dpt_core.backbones.checks.default_tap`), and the side of what it takes as one
            cell.
        rank, layers: of the LoRA, see :func:`~dpt_core.training.lora.add_lora` (tuning).
        freeze_adapter: train the LoRA alone, as the published code can (tuning).
        gradient_checkpointing: recompute activations instead of storing them (tuning).
    """

    loop: LoopConfig
    weights: LossWeights = field(default_factory=LossWeights)
    size: int = 512
    tap: str = AUTO
    patch: int = 1
    rank: int = RANK
    layers: tuple[str, ...] = ATTENTION
    freeze_adapter: bool = False
    gradient_checkpointing: bool = True


PROBING = StageConfig(
    LoopConfig(steps=60_000, batch_size=48, precision="fp16", schedule="constant")
)
"""Stage 1: 48 examples per GPU, constant learning rate 1e-4, fp16."""

TUNING = StageConfig(
    LoopConfig(
        steps=5_000, batch_size=8, accumulate=8, precision="fp16", schedule="cosine", save_every=200
    )
)
"""Stage 2: 8 examples per GPU, 8 micro-steps, learning rate 1e-4 with a cosine schedule, fp16. The
published cosine ran over 40,000 steps, stepped once per process; here it ends with the run."""


@dataclass(frozen=True)
class Sources:
    """Where the training data is.

    Attributes:
        matching: `.jsonl`, or the published `.tsv` of hard negatives.
        grounding: `.jsonl`, or `.json` in RefCOCO's style.
        images: folder that image names are relative to.
        latents: folder for latents, computed once; None encodes pictures at every step.
    """

    matching: Path
    grounding: Path
    images: Path
    latents: Path | None = None

    def open(self, backbone: Backbone, config: StageConfig, name: str) -> Pairs:
        """The examples, with latents if they are wanted.

        Raises:
            DataError: see :mod:`dpt_core.training.data`.
            ValueError: no reader for a file's ending.
        """
        seed = config.loop.seed
        matching: MatchingDataset = _reader(
            self.matching, {".jsonl": JsonlMatching, ".tsv": HardNegativeTable}
        )(self.matching, size=config.size, images=self.images, seed=seed)
        grounding: GroundingDataset = _reader(
            self.grounding, {".jsonl": JsonlGrounding, ".json": RefCoco}
        )(self.grounding, size=config.size, images=self.images, seed=seed)
        if self.latents is not None:
            with process_state().main_process_first():
                for part, folder in ((matching, "matching"), (grounding, "grounding")):
                    precompute(part, backbone.encode, self.latents / folder, vae=name)
            matching = with_latents(matching, self.latents / "matching", vae=name)
            grounding = with_latents(grounding, self.latents / "grounding", vae=name)
        return Pairs(matching, grounding)


def _reader(path: Path, readers: dict[str, type]) -> type:
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(readers)}")
    return readers[path.suffix]


def probe(
    model: Path,
    sources: Sources,
    output: Path,
    config: StageConfig = PROBING,
    phrase_encoder: Path | None = None,
    device: str | torch.device = "cpu",
) -> Path:
    """Stage 1: train an adapter on a frozen model.

    Args:
        model: diffusers model directory of a family in :mod:`dpt_core.backbones.registry`.
        sources: the training data.
        output: folder of the run; called again, it goes on.
        config: settings.
        phrase_encoder: transformers model directory, roberta-base as published; None leaves the
            contrastive alignment loss out.
        device: where to train.

    Returns:
        The checkpoint written, `output/adapter.safetensors`.

    Raises:
        ValueError: the model or the data cannot be used.
        dpt_core.training.loop.Interrupted: stopped; call again to go on.
    """
    backbone, phrases = _models(model, phrase_encoder, device)
    sizes = {"phrase_width": phrases.width} if phrases else {}
    taps = backbone.model.taps()
    tap = default_tap(taps) if config.tap == AUTO else config.tap
    if tap not in taps:
        raise ValueError(f"tap must be one of {AUTO}, {', '.join(taps)}; got {tap!r}")
    adapter_config = AdapterConfig(
        in_channels=taps[tap],
        text_width=backbone.read([""]).vectors.shape[-1],
        family=backbone.model.family,
        tap=tap,
        text=backbone.model.texts[0],
        patch=config.patch,
        **sizes,
    )
    torch.manual_seed(config.loop.seed)
    adapter = DiscriminativeAdapter(adapter_config)
    about = {"model_name": model.name, **_weights(backbone, adapter, phrases)}
    return _train("adapter", backbone, adapter, phrases, sources, output, config, about)


def tune(
    model: Path,
    probed: Path,
    sources: Sources,
    output: Path,
    config: StageConfig = TUNING,
    phrase_encoder: Path | None = None,
    device: str | torch.device = "cpu",
) -> Path:
    """Stage 2: train a probed adapter on, together with a LoRA of the model, or the LoRA alone.

    Args:
        probed: the checkpoint of stage 1.
        model, sources, output, config, phrase_encoder, device: as for :func:`probe`.

    Returns:
        The checkpoint written, `output/dpt.safetensors`.

    Raises:
        ValueError: the model, the adapter or the data cannot be used.
        dpt_core.training.loop.Interrupted: stopped; call again to go on.
    """
    backbone, phrases = _models(model, phrase_encoder, device)
    adapter = load_checkpoint(probed).adapter.requires_grad_(not config.freeze_adapter)
    check_adapter(backbone.model, adapter.config)
    if config.gradient_checkpointing:
        backbone.network.enable_gradient_checkpointing()
    about = {"model_name": model.name, **_weights(backbone, adapter, phrases)}
    about |= {"rank": config.rank, "layers": config.layers, "freeze_adapter": config.freeze_adapter}
    torch.manual_seed(config.loop.seed)
    add_lora(backbone.network, config.rank, config.layers)
    return _train("dpt", backbone, adapter, phrases, sources, output, config, about)


def _weights(
    backbone: Backbone, adapter: DiscriminativeAdapter, phrases: PhraseEncoder | None
) -> dict[str, str | None]:
    """What tells the weights that a run starts from."""
    return {
        "model": fingerprint(backbone.network, backbone.vae, backbone.text_encoder),
        "adapter": fingerprint(adapter),
        "phrase_encoder": fingerprint(phrases) if phrases else None,
    }


@torch.no_grad()
def _set_moments(backbone: Backbone, adapter: DiscriminativeAdapter, data: Pairs) -> None:
    """Take mean and scale of the text vectors from captions of the data, true and false ones."""
    rows = range(0, len(data.matching), max(1, len(data.matching) // PROMPTS))
    texts = [text for row in rows for text in data.matching[row].captions]
    some = (texts[first : first + ROWS] for first in range(0, len(texts), ROWS))
    mean, scale = moments_of(torch.cat([backbone.read(each).vectors for each in some]))
    adapter.text_mean.copy_(mean)
    adapter.text_scale.copy_(scale)


def _models(
    model: Path, phrase_encoder: Path | None, device: str | torch.device
) -> tuple[Backbone, PhraseEncoder | None]:
    phrases = PhraseEncoder.from_folder(phrase_encoder).to(device) if phrase_encoder else None
    return Backbone.from_folder(model, device), phrases


def _train(
    stage: str,
    backbone: Backbone,
    adapter: DiscriminativeAdapter,
    phrases: PhraseEncoder | None,
    sources: Sources,
    output: Path,
    config: StageConfig,
    about: dict[str, Any],
) -> Path:
    data = sources.open(backbone, config, about["model_name"])
    if stage == "adapter" and adapter.config.text == "mean":
        _set_moments(backbone, adapter, data)
    about = {
        **asdict(adapter.config),
        **asdict(config.weights),
        **about,
        "size": config.size,
        "matching": file_digest(sources.matching),
        "grounding": file_digest(sources.grounding),
        "images": images_digest(data.matching, data.grounding),
    }
    task = DiscriminationTask(
        backbone,
        adapter,
        phrases,
        config.weights,
        denoise=stage == "dpt",
        latents=sources.latents is not None,
    )
    preview = box_preview(backbone, data.grounding, latents=sources.latents is not None)
    task = train(task, data, config.loop, output, collate=collate, preview=preview, about=about)
    path = output / f"{stage}.safetensors"
    lora = stored(task.network, lora_of(task.network)) if stage == "dpt" else {}
    if process_state().is_main_process:
        save_checkpoint(path, Checkpoint(adapter.config, task.adapter, lora))
    logger.info("wrote %s", path)
    return path
