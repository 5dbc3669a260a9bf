"""Encode a prompt so that its conditioning also carries the text vector `y`."""

from __future__ import annotations

from typing import Any

from .texts import EMBEDDING, PHRASE, TEXT_KEY

CLIP_ENCODERS = {"l", "g", "h"}
"""The host's names for the CLIP text encoders of SD 1.x and SDXL, SDXL, and SD 2.x."""

Tokens = dict[str, list[list[tuple]]]
"""The host's tokens: encoder name → chunks of (token or embedding, weight)."""


def encode_prompt(clip: Any, text: str) -> list:
    """Conditioning as the host's CLIPTextEncode gives it, with `dpt_text` on every entry.

    Prompt weights and clip-skip shape the conditioning, never `y`; a second pass of the text
    encoder runs only if the prompt uses them. Of a prompt longer than one chunk, `y` is that of
    the first chunk, as a plain text encoder would cut it. The words travel along, for labels.

    Args:
        clip: the host's CLIP.
        text: the prompt.

    Raises:
        ValueError: no CLIP is wired, or the text encoder is not a CLIP.
    """
    if clip is None:
        raise ValueError(
            "clip is missing: the checkpoint has no text encoder; load one with CLIPLoader"
        )
    tokens = clip.tokenize(text)
    position = end_of_text(clip, tokens)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    hidden, pooled = conditioning[0][0], conditioning[0][1].get("pooled_output")
    if clip.layer_idx is not None or clip.use_clip_schedule or _has_weights(tokens):
        plain = clip.clone()
        plain.layer_idx, plain.use_clip_schedule = None, False
        hidden, pooled = plain.encode_from_tokens(_without_weights(tokens), return_pooled=True)
    vectors = {"eos_hidden": hidden[:, position].clone(), "pooled": pooled, PHRASE: text}
    return [
        [embedding, {**extra, TEXT_KEY: {**vectors, EMBEDDING: embedding}}]
        for embedding, extra in conditioning
    ]


def end_of_text(clip: Any, tokens: Tokens) -> int:
    """Position of the end-of-text token in the first chunk.

    Raises:
        ValueError: the text encoder is not a CLIP.
    """
    if not tokens.keys() <= CLIP_ENCODERS:
        raise ValueError(
            "DPT needs the CLIP text encoder of Stable Diffusion 1.x, 2.x or SDXL; the wired "
            f"clip is a {type(clip.cond_stage_model).__name__}"
        )
    name, chunks = next(iter(tokens.items()))
    end = getattr(clip.tokenizer, f"clip_{name}").end_token
    ids = [token[0] if isinstance(token[0], int) else None for token in chunks[0]]
    return ids.index(end)


def _has_weights(tokens: Tokens) -> bool:
    return any(token[1] != 1.0 for chunks in tokens.values() for chunk in chunks for token in chunk)


def _without_weights(tokens: Tokens) -> Tokens:
    return {
        name: [[(token[0], 1.0, *token[2:]) for token in chunk] for chunk in chunks]
        for name, chunks in tokens.items()
    }
