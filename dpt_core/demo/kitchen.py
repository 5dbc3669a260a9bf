"""How the demo model is made: `dpt train demo FOLDER` runs every stage, each resumable.

text → crops → whole (the autoencoder, on crops and then on whole pictures) → latents → denoiser →
refined (the same, once more from a high learning rate) → features → probing → tuning → files. With
`torchrun --nproc-per-node 2 -m dpt_core train demo FOLDER` two processes share a stage's work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..distributed import process_state
from ..losses import LossWeights
from ..training.loop import train
from ..training.lora import lora_of
from . import model
from .recipe import Recipe

logger = logging.getLogger(__name__)

SEED = 0
CAPTIONS = 10**6
"""Captions and crops are drawn anew all the time; there are more than any run sees."""

Tensors = dict[str, torch.Tensor]


class Kitchen:
    """The stages, over one folder.

    Args:
        folder: where the runs live and what they make.
        recipe: settings.
    """

    def __init__(self, folder: str | Path, recipe: Recipe | None = None) -> None:
        self.folder, self.recipe = Path(folder), recipe or Recipe()
        self.folder.mkdir(parents=True, exist_ok=True)

    def make(self, until: str = "files") -> None:
        """Run the stages up to one; those that are done are skipped.

        Raises:
            ValueError: no such stage.
            dpt_core.training.loop.Interrupted: a stage was asked to stop.
        """
        stages, processes = self.recipe.stages, process_state()
        if until not in stages:
            raise ValueError(f"the stages are {', '.join(stages)}; got {until!r}")
        for stage in stages[: stages.index(until) + 1]:
            made_already = self.file("whole" if stage == "crops" else stage).exists()
            if not made_already and not self.file(stage).exists():
                logger.info("demo model: %s", stage)
                if processes.is_main_process or stage != "files":
                    made = getattr(self, f"_{stage}")()
                if processes.is_main_process:
                    _save(made, self.file(stage))
                    for part in self.folder.glob(f"{stage}-*-of-*.safetensors"):
                        part.unlink()
            processes.wait_for_everyone()

    def file(self, stage: str) -> Path:
        """What a stage makes."""
        return self.folder / f"{stage}.safetensors"

    def _run(self, stage: str, task: nn.Module, data: Any, **options: Any) -> nn.Module:
        config = getattr(self.recipe, stage)
        return train(task, data, config, self.folder / stage, **{"collate": list, **options})

    def _text(self) -> Tensors:
        from ..training.base.text import Captions, TextTask

        tokenizer = model.load_tokenizer()
        torch.manual_seed(SEED)
        task = TextTask(tokenizer, model.new_text_encoder(tokenizer))
        return self._run("text", task, Captions(CAPTIONS)).encoder.state_dict()

    def _crops(self) -> Tensors:
        from ..training.base.autoencoder import AutoencoderTask, Crops

        torch.manual_seed(SEED)
        task = AutoencoderTask(model.new_vae())
        return self._run("crops", task, Crops(CAPTIONS, 64), collate=None).vae.state_dict()

    def _whole(self) -> Tensors:
        from ..shapes.data import Scenes
        from ..training.base.autoencoder import AutoencoderTask, Crops, whiten

        vae = self._load("crops", model.new_vae())
        task = AutoencoderTask(vae)
        vae = self._run("whole", task, Crops(CAPTIONS, 128, SEED + 1), collate=None).vae
        sample = Scenes(self.recipe.sample, SEED + 2)
        whiten(vae, torch.cat([sample[index] for index in range(len(sample))]), model.LATENT_SCALE)
        return vae.state_dict()

    def _latents(self) -> Tensors:
        """Latents of both pictures of every pair, `[pairs, 2, 4, 16, 16]`."""
        from torch.utils.data import DataLoader, Subset
        from tqdm.auto import tqdm

        from ..shapes.data import Scenes

        vae = self._load("whole", model.new_vae()).eval()

        def encode(share: range) -> Tensors:
            latents = []
            loader = DataLoader(Subset(Scenes(self.recipe.pairs), share), 32)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                for pictures in tqdm(loader, "latents", disable=self._quiet):
                    means = vae.encode(pictures.flatten(0, 1)).latent_dist.mean
                    latents.append((means * model.LATENT_SCALE).unflatten(0, (-1, 2)).half())
            return {"latents": torch.cat(latents)}

        return self._shared("latents", encode, self.recipe.pairs)

    def _denoiser(self) -> Tensors:
        torch.manual_seed(SEED)
        return self._denoise("denoiser", model.new_unet())

    def _refined(self) -> Tensors:
        return self._denoise("refined", self._load("denoiser", model.new_unet()))

    def _denoise(self, stage: str, unet: nn.Module) -> Tensors:
        from ..shapes.data import ShapesDenoising
        from ..training.base.denoiser import DenoiserTask
        from .preview import judged_preview

        backbone = self.backbone(unet.train())
        backbone.unet.requires_grad_(True)
        task = DenoiserTask(
            backbone.unet, lambda texts: backbone.read(texts).context, backbone.scheduler,
            wrong=self.recipe.wrong, lean=self.recipe.lean,
        )  # fmt: skip
        data = ShapesDenoising(self._tensors("latents")["latents"])
        preview = judged_preview(backbone, self.recipe.previews, SEED + 3)
        done = self._run(stage, task, data, preview=preview)
        return done.unet.state_dict()

    def _features(self) -> Tensors:
        """What the adapter sees in probing; the UNet is frozen there, so one pass of each will do.

        `features` `[N, 6, C, h, w]`, `timesteps` `[N]`, `texts` `[N, 3, D]`.
        """
        from torch.utils.data import DataLoader, Subset
        from tqdm.auto import tqdm

        from ..adapter import DiscriminativeAdapter
        from ..training.discrimination import DiscriminationTask, Pairs, collate

        backbone = self.backbone(self._load("refined", model.new_unet()))
        task = DiscriminationTask(backbone, DiscriminativeAdapter(model.ADAPTER), latents=True)
        examples = Pairs(*self._pairs())

        def see(share: range) -> Tensors:
            seen = []
            torch.manual_seed(SEED + share.start)
            loader = DataLoader(Subset(examples, share), 16, collate_fn=collate)
            with torch.no_grad():
                for batch in tqdm(loader, "features", disable=self._quiet):
                    with torch.autocast("cpu", torch.bfloat16):
                        features, timesteps, texts, _ = task.see(batch)[0]
                    seen.append((features.transpose(0, 1).half(), timesteps, texts.float()))
            names = ("features", "timesteps", "texts")
            parts = zip(*seen, strict=True)
            return {name: torch.cat(part) for name, part in zip(names, parts, strict=True)}

        return self._shared("features", see, self.recipe.seen)

    def _probing(self) -> Tensors:
        from ..adapter import DiscriminativeAdapter
        from ..training.discrimination import ProbingTask, SeenBefore, collate_seen
        from ..training.preview import box_preview

        torch.manual_seed(SEED)
        adapter = DiscriminativeAdapter(model.ADAPTER)
        task = ProbingTask(adapter, self._phrases(), self._weights)
        _, grounding = self._pairs()
        data = SeenBefore(self._tensors("features"), grounding)
        backbone = self.backbone(self._load("refined", model.new_unet()))
        preview = box_preview(backbone, grounding, latents=True)
        math = sdpa_kernel(SDPBackend.MATH)  # fused attention is slow in bf16 on CPUs, backwards
        with self._whitened(adapter, fresh=True), math:
            self._run("probing", task, data, collate=collate_seen, preview=preview)
        return adapter.state_dict()

    def _tuning(self) -> Tensors:
        from ..adapter import DiscriminativeAdapter
        from ..training.discrimination import DiscriminationTask, Pairs, collate
        from ..training.lora import add_lora
        from ..training.preview import box_preview

        torch.manual_seed(SEED)
        backbone = self.backbone(self._load("refined", model.new_unet()))
        add_lora(backbone.unet)
        adapter = self._load("probing", DiscriminativeAdapter(model.ADAPTER))
        task = DiscriminationTask(
            backbone, adapter, self._phrases(), self._weights, denoise=True, latents=True
        )
        data = Pairs(*self._pairs())
        preview = box_preview(backbone, data.grounding, latents=True)
        with self._whitened(adapter):
            self._run("tuning", task, data, collate=collate, preview=preview)
        tuned = {f"adapter.{key}": value for key, value in adapter.state_dict().items()}
        return tuned | {f"lora.{key}": value for key, value in lora_of(task.unet).items()}

    @property
    def _quiet(self) -> bool:
        """Of several processes only the main one shows its progress."""
        return not process_state().is_main_process

    def _shared(self, stage: str, work: Callable[[range], Tensors], count: int) -> Tensors:
        """What all processes together make of `count` items, in order; the main one gets it."""
        state = process_state()
        of = state.num_processes
        parts = [self.folder / f"{stage}-{rank}-of-{of}.safetensors" for rank in range(of)]
        rank = state.process_index
        if not parts[rank].exists():
            _save(work(range(rank, count, of)), parts[rank])
        state.wait_for_everyone()
        if not state.is_main_process:
            return {}
        made = [load_file(part) for part in parts]
        whole = {}
        for name, first in made[0].items():
            whole[name] = first.new_empty(count, *first.shape[1:])
            for rank, each in enumerate(made):
                whole[name][rank::of] = each[name]
        return whole

    def _whitened(self, adapter: nn.Module, fresh: bool = False) -> AbstractContextManager[None]:
        """The adapter's input in coordinates in which all that the features say weighs the same."""
        from ..training.whitening import whitened_input

        with safe_open(self.file("features"), "pt") as kept:
            features = kept.get_slice("features")[: self.recipe.sample, 0]
        return whitened_input(adapter, features, fresh)

    def _pairs(self) -> tuple[Any, Any]:
        """Matching and grounding examples."""
        from ..shapes.data import ShapesGrounding, ShapesMatching

        latents = self._tensors("latents")["latents"]
        return ShapesMatching(latents), ShapesGrounding(latents)

    def _phrases(self) -> nn.Module:
        from ..training.backbone import PhraseEncoder

        tokenizer = model.load_tokenizer()
        return PhraseEncoder(tokenizer, self._load("text", model.new_text_encoder(tokenizer)))

    @property
    def _weights(self) -> LossWeights:
        return LossWeights(recognition=self.recipe.recognition, verdict=self.recipe.verdict)

    def _files(self) -> Tensors:
        """What ships, in half precision: `files/{unet,vae,text_encoder,dpt}.safetensors`."""
        from ..adapter import DiscriminativeAdapter
        from ..checkpoint import Checkpoint, save_checkpoint

        target = self.folder / "files"
        target.mkdir(exist_ok=True)
        for name, stage in (("unet", "refined"), ("vae", "whole"), ("text_encoder", "text")):
            tensors = {k: v.half() for k, v in self._tensors(stage).items()}
            _save(tensors, target / f"{name}.safetensors")
        tuned = {key: value.half() for key, value in self._tensors("tuning").items()}
        adapter = DiscriminativeAdapter(model.ADAPTER).half()
        prefix = "adapter."
        adapter.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tuned.items() if k.startswith(prefix)}
        )
        lora = {k.removeprefix("lora."): v for k, v in tuned.items() if k.startswith("lora.")}
        save_checkpoint(target / "dpt.safetensors", Checkpoint(model.ADAPTER, adapter, lora))
        return tuned

    def backbone(self, unet: nn.Module) -> Any:
        """The demo's model around a UNet, frozen."""
        from diffusers import DDPMScheduler

        from ..training.backbone import Backbone

        tokenizer = model.load_tokenizer()
        text = self._load("text", model.new_text_encoder(tokenizer))
        vae = self._load("whole", model.new_vae())
        for part in (unet, vae, text):
            part.requires_grad_(False).eval()
        scheduler = DDPMScheduler.from_config(model.SCHEDULER)
        return Backbone(unet, vae, text, tokenizer, scheduler)

    def _tensors(self, stage: str) -> Tensors:
        return load_file(self.file(stage))

    def _load(self, stage: str, module: nn.Module) -> nn.Module:
        module.load_state_dict({k: v.float() for k, v in self._tensors(stage).items()})
        return module


def _save(tensors: Tensors, path: Path) -> None:
    """Write a file, complete or not at all."""
    partial = path.with_suffix(".partial")
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, partial)
    partial.replace(path)
