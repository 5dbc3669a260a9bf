"""Encode a prompt so that its conditioning also carries the text vectors `y`."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch

from .texts import EMBEDDING, PHRASE, TEXT_KEY

CLIP_ENCODERS = {"l", "g", "h"}
"""The host's names for the CLIP text encoders of SD 1.x and SDXL, SDXL, and SD 2.x."""

CHUNK = 77
"""Tokens that a CLIP encoder reads at once."""

Tokens = dict[str, list[list[tuple]]]
"""The host's tokens: encoder name → chunks of (token or embedding, weight)."""


def encode_prompt(clip: Any, text: str) -> list:
    """Conditioning as the host's CLIPTextEncode gives it, with `dpt_text` on every entry.

    Prompt weights and clip-skip shape the conditioning, never `y`; a second pass of the text
    encoder runs only if the prompt uses them. Of a prompt longer than one chunk of CLIP, `y` is
    that of the first chunk, as a plain text encoder would cut it. The words travel along.

    Args:
        clip: the host's CLIP.
        text: the prompt.

    Raises:
        ValueError: no CLIP is wired.
    """
    if clip is None:
        raise ValueError(
            "clip is missing: the checkpoint has no text encoder; load one with CLIPLoader"
        )
    tokens = clip.tokenize(text)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    hidden, pooled = conditioning[0][0], conditioning[0][1].get("pooled_output")
    if clip.layer_idx is not None or clip.use_clip_schedule or _has_weights(tokens):
        plain = clip.clone()
        plain.layer_idx, plain.use_clip_schedule = None, False
        hidden, pooled = plain.encode_from_tokens(_without_weights(tokens), return_pooled=True)
    vectors: dict[str, Any] = {PHRASE: text}
    if pooled is not None:
        vectors["pooled"] = pooled
    if tokens.keys() <= CLIP_ENCODERS:
        vectors["eos_hidden"] = hidden[:, end_of_text(clip, tokens)].clone()
    elif (name := _states_of(tokens)) is not None:
        vectors["mean"] = mean_of_prompt(clip, name, text, hidden)
    return [
        [embedding, {**extra, TEXT_KEY: {**vectors, EMBEDDING: embedding}}]
        for embedding, extra in conditioning
    ]


def end_of_text(clip: Any, tokens: Tokens) -> int:
    """Position of the end-of-text token in the first chunk of a CLIP encoder."""
    name, chunks = next(iter(tokens.items()))
    end = getattr(clip.tokenizer, f"clip_{name}").end_token
    ids = [token[0] if isinstance(token[0], int) else None for token in chunks[0]]
    return ids.index(end)


def mean_of_prompt(clip: Any, name: str, text: str, states: torch.Tensor) -> torch.Tensor:
    """Mean of the states of a prompt's own tokens, `[B, D]`; zeros for an empty prompt.

    Args:
        clip: the host's CLIP.
        name: the host's name of the text encoder.
        text: the prompt.
        states: `[B, L, n·D]`, of the last L tokens, as the host gives them to the backbone: of one
            layer, or of `n` layers one after the other, of which the last one counts.
    """
    layers = getattr(_part(clip.cond_stage_model, name), "layer", None)
    width = states.shape[-1] // (len(layers) if isinstance(layers, list) else 1)
    start, end, total = own_tokens(clip, name, text)
    offset = total - states.shape[1]  # the host leaves out the first tokens of some templates
    own = states[:, max(start - offset, 0) : max(end - offset, 0), -width:]
    return own.float().mean(dim=1) if own.shape[1] else own.new_zeros(len(own), width).float()


def own_tokens(clip: Any, name: str, text: str) -> tuple[int, int, int]:
    """First and last place (exclusive) of a prompt's own tokens, and the number of all.

    The template is what the tokens of the prompt and of no prompt share at both ends. Padding
    belongs to neither.
    """
    padding = _part(clip.tokenizer, name).pad_token
    ids, empty = (
        [token[0] for chunk in clip.tokenize(words)[name] for token in chunk]
        for words in (text, "")
    )

    def padded(part: list) -> int:
        return sum(1 for _ in takewhile(lambda token: _same(token, padding), part))

    left, right = padded(ids), padded(ids[::-1])
    real = ids[left : len(ids) - right]
    template = empty[padded(empty) : len(empty) - padded(empty[::-1])]
    before = _shared(real, template)
    after = _shared(real[before:][::-1], template[before:][::-1])
    return left + before, left + len(real) - after, len(ids)


def _part(whole: Any, name: str) -> Any:
    """The tokenizer or model of one encoder; where there is but one, the host says its name."""
    return getattr(whole, getattr(whole, "clip", name))


def _shared(one: list, other: list) -> int:
    """How many tokens two lists begin with alike."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: _same(*pair), pairs))


def _same(one: Any, other: Any) -> bool:
    """Whether two tokens are one; embeddings are like nothing."""
    return isinstance(one, int) and isinstance(other, int) and one == other


def _states_of(tokens: Tokens) -> str | None:
    """The encoder whose states are the conditioning, None where several are mixed (SD 3, HiDream).

    Beside CLIP-L (Flux) it is T5; beside T5 (Anima) it is the language model.
    """
    if "g" in tokens:
        return None
    names = [name for name in tokens if name not in CLIP_ENCODERS]
    return next((name for name in names if name != "t5xxl"), names[0])


def _has_weights(tokens: Tokens) -> bool:
    return any(token[1] != 1.0 for chunks in tokens.values() for chunk in chunks for token in chunk)


def _without_weights(tokens: Tokens) -> Tokens:
    return {
        name: [[(token[0], 1.0, *token[2:]) for token in chunk] for chunk in chunks]
        for name, chunks in tokens.items()
    }


def unread_part(conditioning: list) -> str:
    """What to say of a prompt that is longer than what `y` is of, "" where there is nothing to say.

    Args:
        conditioning: from :func:`encode_prompt`.
    """
    embedding, extra = conditioning[0]
    chunks = embedding.shape[1] // CHUNK
    if chunks < 2 or "eos_hidden" not in extra[TEXT_KEY]:
        return ""
    return (
        f"the prompt takes {chunks} times {CHUNK} tokens: the picture follows all of it, the "
        f"alignment score reads the first {CHUNK} tokens"
    )
