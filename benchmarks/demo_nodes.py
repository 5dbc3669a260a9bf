"""The demo model in ComfyUI, drawn and judged by its nodes as a template wires them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from dpt_core.evaluation.prompts import Prompt
from dpt_core.evaluation.shapes import shapes_verdict

SAMPLING = {"steps": 20, "cfg": 2.5, "sampler_name": "ddim", "scheduler": "sgm_uniform"}
"""As in the templates."""


class DemoNodes:
    """The nodes, and what the demo model's gives. Made after :func:`.in_comfyui.enter`."""

    def __init__(self) -> None:
        from dpt_pack.nodes.alignment_score import AlignmentScore
        from dpt_pack.nodes.demo_model import DemoModel
        from dpt_pack.nodes.explain import Explain
        from dpt_pack.nodes.host.pictures import to_pictures
        from dpt_pack.nodes.ksampler import KSampler
        from dpt_pack.nodes.search_ksampler import SearchKSampler
        from dpt_pack.nodes.text_encode import TextEncode

        import nodes as host

        hidden = SimpleNamespace(unique_id=None)
        self.score, self.explain, self.sampler, self.search = (
            type(kind.__name__, (kind,), {"hidden": hidden})
            for kind in (AlignmentScore, Explain, KSampler, SearchKSampler)
        )
        self.host, self._encode, self._to_pictures = host, TextEncode, to_pictures
        self.model, self.clip, self.vae, self.adapter = DemoModel.execute().result
        (self.empty,) = host.CLIPTextEncode().encode(self.clip, "")

    def sampling(self, prompt: Prompt) -> dict[str, Any]:
        """Inputs of a sampler that draws a prompt."""
        (positive,) = self._encode.execute(self.clip, prompt.text).result
        return {**SAMPLING, "positive": positive, "negative": self.empty, "denoise": 1.0}

    def blank(self, pictures: int) -> dict[str, Any]:
        """An empty LATENT."""
        return {"samples": torch.zeros(pictures, 4, 16, 16)}

    def plain(self, seed: int, pictures: int, sampling: dict[str, Any]) -> dict[str, Any]:
        """A LATENT by the host's own sampler."""
        latent = self.blank(pictures)
        return self.host.common_ksampler(self.model, seed, latent=latent, **sampling)[0]

    def pictures(self, latent: dict[str, Any]) -> torch.Tensor:
        """An IMAGE `[B, H, W, 3]`."""
        return self.host.VAEDecode().decode(self.vae, latent)[0]

    def right(self, images: torch.Tensor, prompt: Prompt) -> list[bool]:
        """What the judge says of each picture of an IMAGE."""
        return [bool(shapes_verdict(each, prompt)["holds"]) for each in self._to_pictures([images])]
