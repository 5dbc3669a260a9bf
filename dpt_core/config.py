"""What an adapter looks like: its sizes, where it reads, which text vector it was trained on."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

TAPS = ("bottom0", "bottom1", "bottom2", "bottom3", "mid", "up0", "up1", "up2", "up3")
"""Places in a diffusion UNet whose feature map can feed the adapter, in order of computation."""

FAMILIES = (
    "unet", "sd3", "flux", "flux2", "chroma", "qwen_image", "lumina2", "z_image", "hidream",
    "krea2", "anima", "wan",
)  # fmt: skip
"""Families of denoising networks, as checkpoints store them. All but the UNet are transformers,
whose taps are `block0`, `block1`, … through all their blocks in order."""

TEXT_SOURCES = ("eos_hidden", "pooled", "mean")
"""Text vectors `y` an adapter can be trained on: the hidden state at the end-of-text token, before
any projection (the paper's); the text encoder's pooled output; or the mean over the prompt's own
tokens of its last layer's states (for language models and T5, which have neither)."""

LIMITS = {
    "in_channels": (1, 2**16),
    "text_width": (1, 2**16),
    "patch": (1, 64),
    "width": (4, 2**14),
    "heads": (1, 2**10),
    "feed_forward": (1, 2**17),
    "encoder_layers": (1, 64),
    "decoder_layers": (1, 64),
    "matching_queries": (1, 2**12),
    "grounding_queries": (0, 2**12),
    "classes": (2, 2**16),
    "contrastive_width": (1, 2**16),
    "phrase_width": (1, 2**16),
}
"""Least and largest sizes. Far beyond what is of use: files come from strangers, and one number in
them must not take a machine's memory."""

LONGEST = 2**16
"""Characters of a config in a file."""


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes and conventions of a :class:`~dpt_core.adapter.DiscriminativeAdapter`.

    Only `in_channels` and `text_width` depend on the backbone; every default is the published
    value.

    Attributes:
        in_channels: channels C of the tapped feature map.
        text_width: width D of the text vector `y`.
        family: of the denoising network, one of :data:`FAMILIES`.
        tap: where the feature map is read: one of :data:`TAPS` in a UNet, else `block0`, …
        text: which vector is `y`, one of :data:`TEXT_SOURCES`.
        patch: side of the squares of cells that the transformer takes as one; 1 as published.
        width: transformer width; a multiple of `heads` and of 4.
        heads: attention heads.
        feed_forward: width of the transformer's feed-forward layers.
        encoder_layers, decoder_layers: depth of the transformer.
        matching_queries: learned queries that give the alignment score.
        grounding_queries: learned queries that give boxes.
        classes: logits of a grounding query, the last one meaning "no object".
        contrastive_width: width of the contrastive alignment space (training only).
        phrase_width: width of the phrase encoder's hidden states (training only).
        dropout: dropout probability while training, in [0, 1).

    Raises:
        ValueError: a field is of another type or outside its range (:data:`LIMITS`).
    """

    in_channels: int
    text_width: int
    family: str = "unet"
    tap: str = "up1"
    text: str = "eos_hidden"
    patch: int = 1
    width: int = 256
    heads: int = 8
    feed_forward: int = 2048
    encoder_layers: int = 1
    decoder_layers: int = 1
    matching_queries: int = 10
    grounding_queries: int = 100
    classes: int = 256
    contrastive_width: int = 64
    phrase_width: int = 768
    dropout: float = 0.1

    def __post_init__(self) -> None:
        taps = TAPS if self.family == "unet" else None
        for name, choices in (("family", FAMILIES), ("tap", taps), ("text", TEXT_SOURCES)):
            value = getattr(self, name)
            if choices is not None and value not in choices:
                got = reprlib.repr(value)
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {got}")
        if taps is None and not re.fullmatch(r"block\d{1,4}", str(self.tap)):
            got = reprlib.repr(self.tap)
            raise ValueError(f"tap of a transformer must be block0, block1, …; got {got}")
        for name, (least, largest) in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= largest:  # True is an int, too
                raise ValueError(
                    f"{name} must be at least {least} and at most {largest}, a whole number; got "
                    f"{reprlib.repr(value)}"
                )
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width must be a multiple of heads ({self.heads}) and of 4; got {self.width}"
            )
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(
                f"dropout must be a number in [0, 1); got {reprlib.repr(self.dropout)}"
            )

    @classmethod
    def from_json(cls, text: str) -> AdapterConfig:
        """Read a config written by :meth:`to_json`.

        Raises:
            ValueError: not JSON, an unknown field, a missing one, or one with a wrong value.
        """
        values = _object(text)
        known = {field.name for field in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(
                f"adapter config has unknown fields {reprlib.repr(sorted(unknown))}; expected "
                f"{sorted(known)}. "
                "The file may come from a newer version of this pack"
            )
        if missing := {"in_channels", "text_width"} - set(values):
            raise ValueError(f"adapter config lacks {sorted(missing)}")
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], **known: Any) -> AdapterConfig:
        """Read the sizes off an adapter's tensors (published names).

        Heads, the number of matching queries, the tap and the text source leave no trace in the
        tensors: they take the published value unless `known` gives them.

        Args:
            tensors: the adapter's state dict.
            known: fields that override what the tensors suggest.

        Raises:
            ValueError: a tensor that carries a size is missing.
        """

        def size(key: str, axis: int = 0) -> int:
            if key not in tensors:
                raise ValueError(f"no DPT adapter: tensor {key!r} is missing")
            shape = tensors[key].shape
            if len(shape) <= axis:
                raise ValueError(
                    f"no DPT adapter: tensor {key!r} must have more than {axis} dimensions; its "
                    f"shape is {list(shape)}"
                )
            return shape[axis]

        matching = known.get("matching_queries", cls.matching_queries)
        sizes = {
            "in_channels": size("input_proj.weight", 1),
            "text_width": size("map_to_clip.2.weight"),
            "patch": size("input_proj.weight", 2),
            "width": size("input_proj.weight"),
            "feed_forward": size("transformer.encoder.layers.0.linear1.weight"),
            "encoder_layers": _count_layers(tensors, "transformer.encoder.layers."),
            "decoder_layers": _count_layers(tensors, "transformer.decoder.layers."),
            "grounding_queries": size("query_embed.weight") - matching,
            "classes": size("class_embed.weight"),
            "contrastive_width": size("contrastive_align_projection_image.weight"),
            "phrase_width": size("contrastive_align_projection_text.weight", 1),
        }
        return cls(**{**sizes, **known})


def _object(text: str) -> dict[str, Any]:
    """A JSON object, nothing in it twice.

    Raises:
        ValueError: something else.
    """
    if len(text) > LONGEST:
        raise ValueError(f"adapter config has {len(text)} characters; expected at most {LONGEST}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a field stands there twice")
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # nested too deep, or a number too long
        raise ValueError(f"adapter config is not JSON as expected: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"adapter config must be a JSON object; got {reprlib.repr(values)}")
    return values


def _count_layers(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})
