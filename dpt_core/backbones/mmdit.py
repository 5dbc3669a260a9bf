"""Transformers with a stream for the text and one for the picture: SD 3, Flux, Qwen-Image.

Flux and Qwen-Image take packed latents: squares of 2 × 2 cells as tokens, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange

from .base import BackboneCall, second_half
from .prompts import mean_of, own_span
from .tokens import Stack, Transformer, timesteps_of

GUIDANCE = 3.5
"""What a guidance-distilled Flux is told where pictures are read."""


class ComparesPooled(Transformer):
    """Compares with what CLIP-L makes of the prompt, its state at the end of the text: Flux's
    pooled vector, the first 768 of SD 3's."""

    texts = ("pooled",)

    @torch.no_grad()
    def text_vectors(
        self,
        prompts: Sequence[str],
        source: str = "pooled",
        inputs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """`[B, D]`.

        Raises:
            ValueError: the pipeline was loaded without CLIP-L.
        """
        pipeline = self._pipeline
        tokenizer, encoder = (
            getattr(pipeline, name, None) for name in ("tokenizer", "text_encoder")
        )
        if encoder is None:
            raise ValueError(
                "the adapter compares with what CLIP-L makes of the prompt, and this "
                f"{self.family} pipeline was loaded without it: load it with text_encoder and "
                "tokenizer"
            )
        ids = tokenizer(
            list(prompts), padding="max_length", max_length=tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        ).input_ids  # fmt: skip
        output = encoder(ids.to(device_of(pipeline)))
        vector = getattr(output, "text_embeds", None)  # SD 3's has a projection, the identity
        return output.pooler_output if vector is None else vector


class StableDiffusion3(ComparesPooled):
    """Stable Diffusion 3 and 3.5: `SD3Transformer2DModel`."""

    family = "sd3"
    stacks = (Stack("transformer_blocks"),)
    names = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
    saved = 24.0

    def conditional(self, call: BackboneCall, guided: bool | None = None) -> slice:
        """The second half of a guided call; skip layer guidance adds one of positive prompts."""
        if call.inputs.get("skip_layers") is not None:
            return slice(None)
        return second_half(self._pipeline, call, guided)

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Encode prompts as the pipeline does."""
        pipeline = self._pipeline
        context, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, None, device=device_of(pipeline),
            do_classifier_free_guidance=False,
        )  # fmt: skip
        return {"encoder_hidden_states": context, "pooled_projections": pooled}

    def _taken(self, inputs: dict[str, Any]) -> BackboneCall:
        return BackboneCall(inputs.pop("hidden_states"), self.path.told(inputs["timestep"]), inputs)

    def _given(self, call: BackboneCall) -> dict[str, Any]:
        return {**call.inputs, "hidden_states": call.x, "timestep": timesteps_of(call)}


class Packed(Transformer):
    """Latents in squares of 2 × 2 cells; reference pictures may follow as more tokens."""

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """`[B, C, h, w]` as `[B, h/2 · w/2, 4 C]`."""
        return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)

    def unpacked(self, x: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """The inverse."""
        rows = size[0] // 2 if size else round(x.shape[1] ** 0.5)
        return rearrange(x, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=2, q=2)

    def _prediction(self, output: torch.Tensor, call: BackboneCall) -> torch.Tensor:
        return output[:, : call.x.shape[1]]

    def _split(self, inputs: dict[str, Any], count: int) -> torch.Tensor:
        """The picture's own numbers; what stands after and beside them goes to the inputs."""
        tokens, channels = inputs.pop("hidden_states"), self.module.proj_out.out_features
        inputs |= {"after": tokens[:, count:], "beside": tokens[:, :count, channels:]}
        return tokens[:, :count, :channels]

    def _joined(self, call: BackboneCall) -> dict[str, Any]:
        """The inverse, with the timestep as a share."""
        inputs = dict(call.inputs)
        after, beside = inputs.pop("after", None), inputs.pop("beside", None)
        x = call.x if beside is None else torch.cat((call.x, beside), dim=2)
        inputs["hidden_states"] = x if after is None else torch.cat((x, after), dim=1)
        if "timestep" not in inputs:
            inputs["timestep"] = (call.sigmas().float() / 1000).to(call.x.dtype)
        return inputs


class Flux(ComparesPooled, Packed):
    """Flux.1 and its relatives (Kontext, Fill, Control): `FluxTransformer2DModel`."""

    family = "flux"
    stacks = (Stack("transformer_blocks"), Stack("single_transformer_blocks"))
    names = (
        "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids",
        "txt_ids", "guidance",
    )  # fmt: skip
    saved = 14.0

    def grid(self, call: BackboneCall) -> tuple[int, int]:
        """By the positions of the picture's own tokens."""
        last = call.inputs["img_ids"][0][: call.x.shape[1]].amax(0).tolist()
        return int(last[1]) + 1, int(last[2]) + 1

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Encode prompts as the pipeline does; a distilled model is told the usual guidance."""
        pipeline, device = self._pipeline, device_of(self._pipeline)
        context, pooled, text = pipeline.encode_prompt(list(prompts), None, device=device)
        rows, columns = (torch.arange(side // 2, device=device) for side in size)
        grid = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns).to(text)
        inputs = {
            "encoder_hidden_states": context, "pooled_projections": pooled,
            "txt_ids": text[None], "img_ids": grid[None],
        }  # fmt: skip
        if self.module.config.guidance_embeds:
            inputs["guidance"] = torch.full((len(context),), GUIDANCE, device=device)
        return inputs

    def _taken(self, inputs: dict[str, Any]) -> BackboneCall:
        for name in ("img_ids", "txt_ids"):
            # One for all rows: a leading 1 keeps them whole where rows are chosen.
            inputs[name] = inputs[name].reshape(-1, *inputs[name].shape[-2:])[:1]
        own = int((inputs["img_ids"][0, :, 0] == 0).sum())
        x = self._split(inputs, own)
        return BackboneCall(x, self.path.told(inputs["timestep"], 1000.0), inputs)

    def _given(self, call: BackboneCall) -> dict[str, Any]:
        inputs = self._joined(call)
        return inputs | {name: inputs[name][0] for name in ("img_ids", "txt_ids")}


class QwenImage(Packed):
    """Qwen-Image and Qwen-Image-Edit: `QwenImageTransformer2DModel`."""

    family = "qwen_image"
    texts = ("mean",)
    stacks = (Stack("transformer_blocks"),)
    names = (
        "hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "timestep",
        "img_shapes",
    )  # fmt: skip
    saved = 14.0

    def grid(self, call: BackboneCall) -> tuple[int, int]:
        """As the pipeline says."""
        return tuple(_own_shape(call.inputs)[1:])

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: Sequence[int]) -> dict[str, Any]:
        """Encode prompts as the pipeline does."""
        pipeline = self._pipeline
        states, mask = pipeline.encode_prompt(list(prompts), device=device_of(pipeline))
        return {
            "encoder_hidden_states": states,
            "encoder_hidden_states_mask": mask,
            "img_shapes": [[(1, size[0] // 2, size[1] // 2)]],
        }

    def arguments(self, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
        """Guidance needs a negative prompt; its makers use a blank."""
        if guidance == 1:
            return {"true_cfg_scale": 1.0}
        return {"true_cfg_scale": guidance, "negative_prompt": [" "] * len(prompts)}

    @torch.no_grad()
    def text_vectors(
        self,
        prompts: Sequence[str],
        source: str = "mean",
        inputs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Mean over the states of the prompt's own tokens."""
        pipeline = self._pipeline
        empty, *ids = pipeline.tokenizer(
            [pipeline.prompt_template_encode.format(text) for text in ("", *prompts)]
        ).input_ids
        inputs = inputs or self.conditioning(prompts, (2, 2))
        states, mask = inputs["encoder_hidden_states"], inputs["encoder_hidden_states_mask"]
        dropped = pipeline.prompt_template_encode_start_idx
        vectors = []
        for row, tokens in enumerate(ids):
            first, last = own_span(tokens, empty)
            own = states[row] if mask is None else states[row][mask[row].bool()]
            vectors.append(mean_of(own, first - dropped, last - dropped))
        return torch.stack(vectors)

    def _taken(self, inputs: dict[str, Any]) -> BackboneCall:
        frames, height, width = _own_shape(inputs)
        if frames != 1:
            raise ValueError(f"DPT reads single pictures; this call has {frames} layers")
        x = self._split(inputs, height * width)
        return BackboneCall(x, self.path.told(inputs["timestep"], 1000.0), inputs)

    def _given(self, call: BackboneCall) -> dict[str, Any]:
        return self._joined(call) | {"img_shapes": call.inputs["img_shapes"][:1] * len(call.x)}


def device_of(pipeline: Any) -> Any:
    """Where a pipeline computes, also where its parts wait elsewhere."""
    return getattr(pipeline, "_execution_device", None) or pipeline.device


def _own_shape(inputs: dict[str, Any]) -> tuple[int, int, int]:
    """Frames, rows and columns of a call's own picture."""
    first = inputs["img_shapes"][0]
    return first[0] if isinstance(first, list) else first
