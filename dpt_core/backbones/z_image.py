"""Z-Image: one stream of picture and text tokens, `ZImageTransformer2DModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .base import BackboneCall
from .mmdit import device_of
from .prompts import mean_of, own_span
from .tokens import Stack, Transformer

CHAT = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
"""How the pipeline puts a prompt into its template."""


class ZImage(Transformer):
    """Z-Image and Z-Image-Turbo.

    The network is told `1 − t` and predicts the way from noise to picture. It takes lists, a latent
    and a text each: here they are tensors, the texts padded, so that rows can be chosen.
    """

    family = "z_image"
    texts = ("mean",)
    stacks = (Stack("layers", None),)
    names = ("x", "t", "cap_feats")
    saved = 28.0
    sign = -1.0

    def width(self) -> int:
        """Channels of a token."""
        return self.module.dim

    def blocks(self, tap: str) -> Sequence[torch.nn.Module]:
        """With the blocks that refine the picture alone."""
        return [*self.module.noise_refiner, *super().blocks(tap)]

    def conditional(self, call: BackboneCall, guided: bool | None = None) -> slice:
        """The first half of a guided call; towards the end the pipeline may go on without."""
        pipeline = self._pipeline
        if guided is None:
            guided = getattr(pipeline, "do_classifier_free_guidance", True)
            last = getattr(pipeline, "_cfg_truncation", None)
            if last is not None and last <= 1:
                guided = guided and 1 - float(call.sigmas()[0]) / 1000 <= last
        return slice(0, len(call.x) // 2) if guided else slice(None)

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Encode prompts as the pipeline does."""
        pipeline = self._pipeline
        states, _ = pipeline.encode_prompt(
            list(prompts), device=device_of(pipeline), do_classifier_free_guidance=False
        )
        return _padded(states)

    def arguments(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """The pipeline counts what is added to the positive prediction: one less."""
        return {"guidance_scale": guidance - 1}

    @torch.no_grad()
    def text_vectors(
        self,
        prompts: Sequence[str],
        source: str = "mean",
        inputs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Mean over the states of the prompt's own tokens."""
        tokenizer = self._pipeline.tokenizer
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}], **CHAT)
            for text in ("", *prompts)
        ]
        empty, *ids = tokenizer(texts).input_ids
        states = (inputs or self.conditioning(prompts, (2, 2)))["texts"]
        spans = [own_span(tokens, empty) for tokens in ids]
        return torch.stack([mean_of(each, *span) for each, span in zip(states, spans, strict=True)])

    def _taken(self, inputs: dict[str, Any]) -> BackboneCall:
        if isinstance(inputs["x"][0], list):
            raise ValueError("DPT does not read Z-Image Omni: its calls hold several pictures")
        x = torch.stack(list(inputs.pop("x")))[:, :, 0]
        inputs |= _padded(inputs.pop("cap_feats"))
        return BackboneCall(x, self.path.told(1 - inputs["t"], 1000.0), inputs)

    def _given(self, call: BackboneCall) -> dict[str, Any]:
        inputs = dict(call.inputs)
        lengths = inputs.pop("lengths").tolist()
        texts = zip(inputs.pop("texts"), lengths, strict=True)
        inputs.setdefault("t", 1 - call.sigmas().float() / 1000)
        return inputs | {
            "x": list(call.x[:, :, None].unbind(0)),
            "cap_feats": [text[:length] for text, length in texts],
        }

    def _prediction(self, output: Any, call: BackboneCall) -> torch.Tensor:
        return torch.stack(list(output))[:, :, 0]

    def _returned(self, predicted: torch.Tensor) -> Any:
        return list(predicted[:, :, None].unbind(0))


def _padded(texts: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """States `[L, D]` of texts as `[N, L, D]`, and their lengths `[N]`."""
    lengths = torch.tensor([len(text) for text in texts])
    return {"texts": pad_sequence(list(texts), batch_first=True), "lengths": lengths}
