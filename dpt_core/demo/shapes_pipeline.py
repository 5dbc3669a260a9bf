"""Stable Diffusion 3 with one small text encoder, as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch


@cache
def shapes_pipeline() -> type:
    """The class; diffusers is imported where it is asked for."""
    from diffusers import StableDiffusion3Pipeline

    class ShapesPipeline(StableDiffusion3Pipeline):
        """Stable Diffusion 3 with one text encoder, whose states have the transformer's width."""

        def encode_prompt(
            self,
            prompt: str | Sequence[str],
            prompt_2: Any = None,
            prompt_3: Any = None,
            device: Any = None,
            num_images_per_prompt: int = 1,
            do_classifier_free_guidance: bool = True,
            negative_prompt: str | Sequence[str] | None = None,
            prompt_embeds: torch.Tensor | None = None,
            negative_prompt_embeds: torch.Tensor | None = None,
            pooled_prompt_embeds: torch.Tensor | None = None,
            negative_pooled_prompt_embeds: torch.Tensor | None = None,
            **rest: Any,
        ) -> tuple[torch.Tensor | None, ...]:
            """As the class it is of: states and pooled vectors of prompts and negative prompts."""
            if prompt_embeds is None:
                prompt_embeds, pooled_prompt_embeds = self._encoded(prompt)
            count = len(prompt_embeds)
            if do_classifier_free_guidance and negative_prompt_embeds is None:
                negative = negative_prompt or ""
                negative = [negative] * count if isinstance(negative, str) else negative
                negative_prompt_embeds, negative_pooled_prompt_embeds = self._encoded(negative)
            found = (
                prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds,
                negative_pooled_prompt_embeds,
            )  # fmt: skip
            return tuple(
                None if each is None else each.repeat_interleave(num_images_per_prompt, 0)
                for each in found
            )

        def _encoded(self, texts: str | Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
            texts = [texts] if isinstance(texts, str) else list(texts)
            ids = self.tokenizer(
                texts, padding="max_length", max_length=self.tokenizer.model_max_length,
                truncation=True, return_tensors="pt",
            ).input_ids  # fmt: skip
            output = self.text_encoder(ids.to(self.text_encoder.device))
            return output.last_hidden_state, output.pooler_output

    return ShapesPipeline
